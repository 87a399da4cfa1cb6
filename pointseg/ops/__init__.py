"""Operators of the networks on points and voxels, in torch; the same results on every device."""
