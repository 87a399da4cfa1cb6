"""Geometry of whole clouds in NumPy, before a network sees them: voxels, normals, height above the ground."""
