"""Which errors mean too little memory."""

import pytest
import torch

from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory


@pytest.mark.parametrize(
    ("error", "means_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("sizes do not match"), False),
        (ValueError("out of memory"), False),
    ],
    ids=repr,
)
def test_errors_of_memory(error, means_memory):
    assert ran_out_of_memory(error) == means_memory
