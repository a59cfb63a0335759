"""Batches that get through before the answer is overdue, on a slow network too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["LARGE", "batches"]

LARGE = 4 * 1024 * 1024
"""Bytes that travel at once. What is larger by itself travels alone."""

T = TypeVar("T")


def batches(items: Sequence[T], size: Callable[[T], int], large: int = LARGE, most: int = 500) -> Iterator[list[T]]:
    """Cut a sequence, in order: so many together at most, and as many bytes as are allowed."""
    batch: list[T] = []
    total = 0
    for item in items:
        more = size(item)
        total += more
        if batch and (total > large or len(batch) == most):
            yield batch
            batch, total = [], more
        batch.append(item)
    if batch:
        yield batch
