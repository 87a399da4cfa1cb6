"""DINO-Med3D inside stock nnU-Net, on one feature lifting core.

Importing this package is light on purpose: neither torch nor nnU-Net is loaded until a
subpackage asks for it.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
