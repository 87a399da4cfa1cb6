"""DINO-Med3D inside stock nnU-Net, on one feature lifting core.

Importing this package is light on purpose: neither torch nor nnU-Net is loaded until a name of it is used
or a subpackage asks for it. Types of these names are in __init__.pyi.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["VolumeSegmenter", "__version__", "load_model"]

_HOMES = {
    "VolumeSegmenter": "dinomed3d.inference.in_memory.load_model",
    "load_model": "dinomed3d.inference.in_memory.load_model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dinomed3d' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
