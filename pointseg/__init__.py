"""Point cloud segmentation with lifted 2D features (DITR, D-DITR); to come.

It will stand on ``dinomed3d.lifting``, as the volume side does.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
