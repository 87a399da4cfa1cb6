"""How a worker process hands a batch to the training: in memory that both share, or with the reason why not.

PyTorch's own thread that hands batches over prints an error and loses the batch: the training would wait for it
forever. So tensors are moved into shared memory before, where the error is the batch's.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import util
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.shared_memory import explain_full_shared_memory
from pointseg.cloud import Cloud

LOCKS_OF_A_WORKER = 6
"""More than PyTorch and Python make for the queues of one."""
LONGEST_SOCKET = 103
"""Bytes of a socket's path on macOS; Linux allows a few more."""


class HandOver:
    """Collates samples, and shares the memory of what a worker process made of them."""

    def __init__(self, collate: Callable[[Any], Cloud | UserError] | None = None) -> None:
        """Take the function that makes a batch of samples; None: a sample is one already."""
        self._collate = collate

    def __call__(self, samples: Any) -> Cloud | UserError:
        """The batch; an error instead if there is no memory to share it."""
        batch: Cloud | UserError = samples if self._collate is None else self._collate(samples)
        if get_worker_info() is None or isinstance(batch, UserError):
            return batch
        try:
            for value in vars(batch).values():
                if isinstance(value, Tensor):
                    value.share_memory_()
        except (RuntimeError, OSError) as error:
            reason = explain_full_shared_memory(error, alone="--workers 0")
            if reason is None:
                raise
            return UserError(reason)
        return batch


def check_sharing(workers: int) -> None:
    """Try what a data loader needs of the system, because its own failure is a hang or leaves half of it behind.

    Raises:
        OSError: the system has no memory for locks.
        UserError: the path of temporary files is too long for the sockets through which memory is shared.
    """
    if not workers:
        return
    context = multiprocessing.get_context()
    locks = [context.Lock() for _ in range(LOCKS_OF_A_WORKER * (workers + 1))]
    del locks
    if sys.platform != "win32":
        folder = util.get_temp_dir()
        if len(os.fsencode(folder)) + len("/listener-12345678") > LONGEST_SOCKET:
            raise UserError(
                f"worker processes share memory through sockets, and the folder of temporary files ({folder}) has too "
                "long a path for them: set TMPDIR to a shorter one, or use --workers 0"
            )
