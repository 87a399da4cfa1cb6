"""Batches of worker processes: in shared memory, or an error that is the batch's; never a wait without end."""

from __future__ import annotations

import errno
import multiprocessing
import sys

import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.loading import hand_over
from pointseg.loading.hand_over import HandOver, check_sharing


def cloud() -> Cloud:
    return Cloud(
        coord=torch.zeros(4, 3),
        grid_coord=torch.arange(12).reshape(4, 3),
        feat=torch.ones(4, 2),
        offset=torch.tensor([4]),
    )


@pytest.fixture
def in_worker(monkeypatch):
    monkeypatch.setattr(hand_over, "get_worker_info", lambda: "of a worker process")


def test_batches_of_workers_are_in_shared_memory(in_worker):
    batch = HandOver()(cloud())
    assert batch.coord.is_shared() and batch.feat.is_shared()
    refused = UserError("a scene that cannot be read")
    assert HandOver(lambda samples: refused)([]) is refused


def test_without_workers_nothing_is_moved():
    assert not HandOver(lambda clouds: clouds[0])([cloud()]).coord.is_shared()


def test_full_shared_memory_is_the_error_of_the_batch(in_worker, monkeypatch):
    full = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"

    def refuse(self):
        raise RuntimeError(full)

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    error = HandOver()(cloud())
    assert isinstance(error, UserError) and "--workers 0" in str(error)
    full = "a bug"
    with pytest.raises(RuntimeError, match="a bug"):
        HandOver()(cloud())


@pytest.mark.skipif(sys.platform == "win32", reason="no sockets there")
def test_a_system_that_cannot_share_is_found_before_workers_start(monkeypatch):
    check_sharing(1)
    monkeypatch.setattr(hand_over.util, "get_temp_dir", lambda: "/long" * 20)
    with pytest.raises(UserError, match="TMPDIR"):
        check_sharing(1)

    def refuse(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(multiprocessing.get_context()), "Lock", refuse)
    with pytest.raises(OSError, match="No space"):
        check_sharing(1)
    check_sharing(0)
