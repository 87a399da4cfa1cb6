"""Who decides between the ways of devices, and how the host reads numbers."""

import pytest
import torch

from pointseg.ops.hardware.pieces import VALUES, decided_for, is_cpu, read, values_at_once


def test_read():
    values = torch.tensor([0.1, -torch.inf]), torch.tensor([2**40, -3]), torch.tensor([True])
    ours = read(*values)
    with decided_for("cuda"):
        theirs = read(*values)
    assert ours == theirs == [[values[0][0].item(), -torch.inf], [2**40, -3], [1]]


def test_who_decides():
    tensor = torch.zeros(1)
    assert is_cpu(tensor) and not is_cpu(torch.device("cuda"))
    assert values_at_once(tensor, 7, width=2) == 7
    assert values_at_once(torch.device("cuda"), 7, width=2) == VALUES // 2
    assert values_at_once(torch.device("mps"), 7) == VALUES
    with decided_for("cuda"):
        assert not is_cpu(tensor) and values_at_once(tensor, 7) == VALUES
    with pytest.raises(KeyError), decided_for("cuda"):
        raise KeyError
    assert is_cpu(tensor)
