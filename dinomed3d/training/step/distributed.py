"""Training in several processes, one per GPU."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

from dinomed3d.runtime.errors import UserError

T = TypeVar("T")


def is_parallel() -> bool:
    """Whether this process is one of a group, as under nnU-Net's -num_gpus."""
    return distributed.is_available() and distributed.is_initialized()


def processes() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if is_parallel() else 1


def rank() -> int:
    """Rank of this process, from 0."""
    return distributed.get_rank() if is_parallel() else 0


def gathered(value: T) -> list[T]:
    """The values of all processes, by rank; every process must call this.

    Args:
        value: of this process; small and picklable.
    """
    if not is_parallel():
        return [value]
    values: list[T | None] = [None] * processes()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # all_gather_object has filled it


def wait() -> None:
    """Wait until every process has come here."""
    if is_parallel():
        distributed.barrier()


def check_batch(batch_size: int) -> None:
    """Refuse a batch that does not split evenly: gradients would weight its patches unequally.

    Args:
        batch_size: of the plan.

    Raises:
        UserError: it is not a multiple of the number of processes.
    """
    count = processes()
    if batch_size % count:
        fitting = max(n for n in range(1, count) if batch_size % n == 0)
        raise UserError(
            f"DinoMed3DTrainer: the plan's batch of {batch_size} does not split evenly over {count} GPUs; train with "
            f"-num_gpus {fitting}, or set 'batch_size' in the plan to a multiple of {count}"
        )
