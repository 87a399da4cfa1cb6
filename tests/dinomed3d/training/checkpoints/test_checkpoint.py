"""Checkpoints: atomic, plain, complete; random generators go back to where they were."""

import random

import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.checkpoints.checkpoint import (
    KEYS,
    OWN_KEYS,
    plain,
    read_checkpoint,
    write_checkpoint,
)
from dinomed3d.training.checkpoints.random_state import random_state, set_random_state

COMPLETE = {key: {} for key in KEYS} | {"dinomed3d": {key: {} for key in OWN_KEYS}}


def test_round_trip(tmp_path):
    content = COMPLETE | {"w": torch.ones(2), "log": [np.float32(0.5), {"n": np.int64(3)}]}
    write_checkpoint(content, tmp_path / "c.pth")
    found = read_checkpoint(tmp_path / "c.pth")
    assert torch.equal(found["w"], torch.ones(2)) and found["log"] == [0.5, {"n": 3}]
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


def test_a_failure_while_writing_leaves_the_old_one(tmp_path, monkeypatch):
    write_checkpoint(COMPLETE | {"epoch": 1}, tmp_path / "c.pth")

    def half(content, stream):
        stream.write(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(COMPLETE | {"epoch": 2}, tmp_path / "c.pth")
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "c.pth")["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


def test_random_generators_go_back():
    state = random_state()
    first = (random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist())
    set_random_state(state)
    assert first == (random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist())


def test_random_state_survives_the_file(tmp_path):
    def drawn():
        normal = np.random.randn(1).tolist()  # numpy makes two at a time and keeps one
        return random.random(), normal, np.random.rand(3).tolist(), torch.rand(3).tolist()

    np.random.randn(1)
    own = COMPLETE["dinomed3d"] | {"random_states": [random_state()]}
    write_checkpoint(COMPLETE | {"dinomed3d": own}, tmp_path / "c.pth")
    first = drawn()
    set_random_state(read_checkpoint(tmp_path / "c.pth")["dinomed3d"]["random_states"][0])
    assert first == drawn()


def test_plain_keeps_types_of_containers():
    assert plain((np.float64(1.5), [np.arange(2)])) == (1.5, [[0, 1]])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"network_weights": {}}, "stock.pth.*'dinomed3d'"),
        (
            {"dinomed3d": {"version": "9.9"}, "network_weights": {}},
            "stock.pth.*optimizer_state.*9.9",
        ),
        (None, "stock.pth"),  # truncated; damaged files are tested with their reader
    ],
)
def test_damaged_and_foreign_checkpoints_are_refused(tmp_path, content, names):
    path = tmp_path / "stock.pth"
    torch.save(content if content is not None else torch.ones(1000), path)
    if content is None:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=names):
        read_checkpoint(path)
