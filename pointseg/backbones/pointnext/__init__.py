"""PointNeXt: its network, its layers, and its levels of points."""
