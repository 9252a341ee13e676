"""The next item of a loop is read while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(read: Callable[[Item], Read], items: Iterable[Item]) -> Iterator[tuple[Item, Read]]:
    """Yields (item, read(item)) in the items' order; one further item at most is read meanwhile, in a thread.

    What `read` raises is raised when its item's turn comes.
    """
    left = iter(items)
    with ThreadPoolExecutor(1) as pool:
        pending = [(item, pool.submit(read, item)) for item in islice(left, 1)]
        while pending:
            item, future = pending.pop()
            found = future.result()
            pending = [(following, pool.submit(read, following)) for following in islice(left, 1)]
            yield item, found
