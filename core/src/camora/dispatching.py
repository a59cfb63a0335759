"""Many dispatches, in batches."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
from typing import Any, TypeGuard, cast

from camora.dispatchable import Dispatchable
from camora.dispatcher import Dispatcher
from camora.errors import DispatchError
from camora.job import Job
from camora.signature import Signature

__all__ = ["Dispatching", "is_one_job"]

BATCH = 1000


class Dispatching:
    """Many dispatches under way: `await` it for a list of jobs, or `async for` over it, in constant memory.

    Batches go out one after the other; when one fails, its error is raised, and those before it are enqueued.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        signatures: Iterable[Any] | AsyncIterable[Any],
        *,
        each: Callable[[Dispatchable[Any]], Awaitable[Job[Any]]],
    ) -> None:
        self._dispatcher = dispatcher
        self._signatures = signatures
        self._each = each
        """Dispatches what is more than one job."""

    def __await__(self) -> Generator[Any, None, list[Job[Any]]]:
        return self._all().__await__()

    async def _all(self) -> list[Job[Any]]:
        return [job async for job in self]

    async def __aiter__(self) -> AsyncIterator[Job[Any]]:
        async for batch in _batches(self._signatures):
            for plain, some in itertools.groupby(batch, is_one_job):
                if plain:
                    for job in await self._dispatcher.batch(cast("list[Signature[Any]]", list(some))):
                        yield job
                else:
                    for one in some:
                        yield await self._each(one)


def is_one_job(what: Dispatchable[Any]) -> TypeGuard[Signature[Any]]:
    """Whether this is a signature that nothing follows."""
    return isinstance(what, Signature) and not what.followed


async def _batches(signatures: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[list[Dispatchable[Any]]]:
    if isinstance(signatures, AsyncIterable):
        batch: list[Dispatchable[Any]] = []
        async for signature in signatures:
            batch.append(_signature(signature))
            if len(batch) >= BATCH:
                yield batch
                batch = []
        if batch:
            yield batch
        return
    iterator = iter(signatures)
    while batch := [_signature(signature) for signature in itertools.islice(iterator, BATCH)]:
        yield batch


def _signature(value: Any) -> Dispatchable[Any]:
    if not isinstance(value, Dispatchable):
        raise DispatchError(f"dispatch_many takes signatures, such as add.s(1, 2); got {value!r}")
    return value
