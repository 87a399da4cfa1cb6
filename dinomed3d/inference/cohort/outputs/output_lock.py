"""One run at a time writes into an output folder; shards of one run share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.file_lock import HeldError, hold


@contextmanager
def hold_output(out: Path, shard: tuple[int, int] | None) -> Iterator[None]:
    """Keep other runs of the same cases from an output folder until the block ends.

    Two of them would predict every case twice, and replace each other's files.

    Args:
        out: the output folder.
        shard: (i, n) of n that share the folder; None: all cases.

    Raises:
        UserError: another run is at work there.
        OSError: the folder cannot be written to.
    """
    name = ".lock" if shard is None else f".lock-{shard[0]}-of-{shard[1]}"
    try:
        with hold(out / name):
            yield
    except HeldError as error:
        what = "" if shard is None else f" on shard {shard[0]} of {shard[1]}"
        raise UserError(
            f"-o {out}: {error.holder.brief()} is at work there{what}; wait for it to end, or give another -o"
        ) from error
