"""What laspy and its decompressor raise, as our error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pointseg.files.table.errors import CloudFileError


@contextmanager
def errors_of(path: Path, what: str) -> Iterator[None]:
    """Whatever laspy and lazrs raise, as our error: a damaged file makes them raise many things."""
    try:
        yield
    except (CloudFileError, OSError, MemoryError):
        raise
    except BaseException as error:
        # What panics in lazrs (it is written in Rust) comes as no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CloudFileError(path, f"{what}: {error or type(error).__name__}") from error
