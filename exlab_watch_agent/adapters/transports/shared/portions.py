"""Many items in as many as go into one request, one call or one command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def portions(
    items: Iterable[T],
    *,
    count_max: int | None = None,
    bytes_max: int | None = None,
    size_bytes_of: Callable[[T], int] = lambda _: 0,
) -> Iterator[list[T]]:
    """Yield the items in order, within both bounds; one that is larger than `bytes_max` is a portion of its own.

    `size_bytes_of`: what an item counts against `bytes_max`.
    """
    portion: list[T] = []
    size_bytes = 0
    for item in items:
        more = size_bytes_of(item)
        is_full = len(portion) == count_max or (bytes_max is not None and size_bytes + more > bytes_max)
        if portion and is_full:
            yield portion
            portion, size_bytes = [], 0
        portion.append(item)
        size_bytes += more
    if portion:
        yield portion
