"""The Triton kernels on a CPU."""

import importlib
import sys

import pytest

from pointseg.ops import convolution
from pointseg.ops.convolution.masked_tiles import masked_tiles

_FILES = ("triton_kernels", "triton_tiles", "triton_launch")


@pytest.fixture(scope="session")
def _interpreted_module():
    """Triton decides when a kernel is defined: imported once more, and put out of others' sight again."""
    pytest.importorskip("triton")

    def forget():
        for name in _FILES:
            sys.modules.pop(f"{convolution.__name__}.{name}", None)
            vars(convolution).pop(name, None)

    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        module = importlib.import_module("pointseg.ops.convolution.triton_launch")
    forget()
    return module


@pytest.fixture
def device_blocks(_interpreted_module, monkeypatch):
    """``triton_launch`` by Triton's interpreter, in the blocks of a device."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return _interpreted_module


@pytest.fixture
def interpreted(device_blocks, monkeypatch):
    """The same in larger blocks, with tiles made by torch: interpreting takes its time."""
    kernels = device_blocks
    blocks, constants = kernels.Blocks((128, 32), 4, 3), kernels.correlate_constants
    monkeypatch.setattr(kernels, "masked_tiles", masked_tiles)
    monkeypatch.setattr(kernels, "multiply_candidates", lambda *_: [blocks])
    monkeypatch.setattr(
        kernels, "correlate_constants", lambda *sizes: constants(*sizes) | {"BLOCK_ROWS": 128}
    )
    return kernels
