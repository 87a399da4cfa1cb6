"""Sparse convolution: the grid of voxels, its kernel maps, the layers, and a way of computing for each device."""
