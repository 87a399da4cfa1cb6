"""The stream of batches of a data loader, which ends its workers when it is closed."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud


class Stream:
    """Iterator of a data loader that ends its workers when it is closed.

    Garbage collection would end them too, but a pending exception delays it; and at the end of the program
    they are asked by a signal, which they ignore.
    """

    def __init__(self, loader: DataLoader[Cloud | UserError]) -> None:
        self._iterator = iter(loader)

    def __iter__(self) -> Iterator[Cloud | UserError]:
        return self

    def __next__(self) -> Cloud | UserError:
        found: Cloud | UserError = next(self._iterator)
        return found

    def close(self) -> None:
        """End the workers of the data loader."""
        del self._iterator
