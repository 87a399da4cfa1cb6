"""One run at a time predicts a case into an output folder; shards of one run share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.file_lock import HeldError, hold, holder_of

WHOLE = ".lock"
"""The lock of a run of all cases; those of shards are called `.lock-1-of-8` and so on."""


@contextmanager
def hold_output(out: Path, shard: tuple[int, int] | None) -> Iterator[None]:
    """Keep other runs of the same cases from an output folder until the block ends.

    Two of them would predict every case twice, and replace each other's files. Two that begin in the same moment may
    both be refused.

    Args:
        out: the output folder.
        shard: (i, n) of n that share the folder; None: all cases.

    Raises:
        UserError: another run is at work there, or the folder cannot be written to.
    """
    own = out / (WHOLE if shard is None else f"{WHOLE}-{shard[0]}-of-{shard[1]}")
    with ExitStack() as held:
        try:
            held.enter_context(hold(own, private=True))
            others = [
                path for path in out.glob(f"{WHOLE}*") if _has_the_same_cases(path.name, shard)
            ]
            for path in others:
                if path != own and (holder := holder_of(path)) is not None:
                    raise HeldError(holder)
        except HeldError as error:
            raise UserError(
                f"-o {out}: {error} is at work there; wait for it to end, or give another -o"
            ) from error
        except OSError as error:
            raise UserError(
                f"-o {error.filename or out}: cannot be written to ({error.strerror or error})"
            ) from error
        yield


def _has_the_same_cases(lock: str, shard: tuple[int, int] | None) -> bool:
    """Whether the run of a lock may predict cases of a shard: not if both are of the same division."""
    return shard is None or not lock.endswith(f"-of-{shard[1]}")
