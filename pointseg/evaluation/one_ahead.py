"""The next item of an iterator is made on a thread of its own while the present one is used."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")
_END = object()


def one_ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items in the same order, each begun when the one before it is handed over.

    All are made on one thread, one after the other; an error is raised where the item would have come. Closing the
    generator waits for the item that is being made.
    """
    iterator: Iterator[Item] = iter(items)
    with ThreadPoolExecutor(1, "one-ahead") as thread:
        coming = thread.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, iterator, _END)
            yield cast(Item, item)
