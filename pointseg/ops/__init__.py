"""Operators on points and voxels: curves, sparse convolution, attention, pooling, grouping, sampling."""
