"""Checkpoints: atomic, plain, complete; random generators go back to where they were."""

import pickle
import random

import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.checkpoint import (
    KEYS,
    OWN_KEYS,
    plain,
    random_state,
    read_checkpoint,
    set_random_state,
    write_checkpoint,
)

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
    own = COMPLETE["dinomed3d"] | {"random_states": [random_state()]}
    write_checkpoint(COMPLETE | {"dinomed3d": own}, tmp_path / "c.pth")
    first = (random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist())
    set_random_state(read_checkpoint(tmp_path / "c.pth")["dinomed3d"]["random_states"][0])
    assert first == (random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist())


def test_plain_keeps_types_of_containers():
    assert plain((np.float64(1.5), [np.arange(2)])) == (1.5, [[0, 1]])


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"dinomed3d": Bomb()}, "c.pth")
    with pytest.raises(UserError, match="c.pth: wants to run"):
        read_checkpoint("c.pth")
    assert not (tmp_path / "exploded").exists()
    with open("d.pth", "wb") as stream:
        pickle.dump(Bomb(), stream, protocol=2)
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint("d.pth")
    assert not (tmp_path / "exploded").exists()


def test_truncated_and_foreign_checkpoints_are_refused(tmp_path):
    write_checkpoint(COMPLETE | {"w": torch.ones(1000)}, tmp_path / "c.pth")
    whole = (tmp_path / "c.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="half.pth: cannot be read.*truncated"):
        read_checkpoint(tmp_path / "half.pth")
    torch.save({"network_weights": {}}, tmp_path / "stock.pth")
    with pytest.raises(UserError, match="not written by DinoMed3DTrainer"):
        read_checkpoint(tmp_path / "stock.pth")
    torch.save({"dinomed3d": {"version": "9.9"}, "network_weights": {}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="lacks optimizer_state, .* another version .9.9."):
        read_checkpoint(tmp_path / "other.pth")
