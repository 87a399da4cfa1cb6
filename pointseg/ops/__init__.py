"""Operators of the networks on points and voxels, in torch, for every device."""
