"""A Camora that knows of Django's transactions, and of its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from asgiref.sync import AsyncToSync, sync_to_async
from camora import Camora, Middleware
from camora.dispatchable import Dispatchable
from camora.errors import ConfigurationError
from camora.job import Job
from camora.signature import Signature
from django.db.backends.base.base import BaseDatabaseWrapper

from camora_django.broker import DjangoBroker
from camora_django.fresh_connections import FreshConnections, is_importable, with_fresh_connections
from camora_django.publishing import Within

__all__ = ["DjangoCamora"]


class DjangoCamora(Camora):
    """As `Camora`, for a Django project.

    With a broker in a database of Django's (`django://default`) `dispatch_sync` goes over Django's own connection of
    the calling thread, and so into the transaction that is open there. `dispatch` does the same where synchronous code
    waits for it (`async_to_sync`); elsewhere no transaction of Django's can be open, and it goes over connections of
    Camora's.
    """

    def __init__(self, *args: Any, middleware: Sequence[Middleware] = (), **options: Any) -> None:
        super().__init__(*args, middleware=[FreshConnections(), *middleware], **options)
        for broker in (self.broker, self.outbox and self.outbox.broker):
            if isinstance(broker, DjangoBroker):
                broker.joins = True

    def _register(self, function: Any, options: Mapping[str, Any], *, fallback: str | None = None) -> Any:
        if not (is_importable(function) and self._runs_elsewhere(options)):
            function = with_fresh_connections(function)
        return super()._register(function, options, fallback=fallback)

    def _runs_elsewhere(self, options: Mapping[str, Any]) -> bool:
        pool = self._pools.get(options.get("pool") or "")
        return "process" in (options.get("execution"), pool.kind if pool else None)

    def serve(self, queues: Iterable[str]) -> None:
        """Let workers take these queues, too, where nobody says which ones."""
        for queue in queues:
            self._declarations.mention(queue)

    def dispatch_signature_sync(self, signature: Dispatchable[Any]) -> Job[Any]:
        """Dispatch over Django's connection, if that is to the broker's database; blocks.

        Raises `ConfigurationError` in asynchronous code, and in a transaction for what is more than one job.
        """
        broker = self.broker
        if isinstance(broker, DjangoBroker):
            if asyncio._get_running_loop() is not None:  # noqa: SLF001 -- `get_running_loop`, without an exception
                label = signature.task.name if isinstance(signature, Signature) else repr(signature)
                raise ConfigurationError(
                    f"{label}: dispatch_sync blocks, and an event loop runs in this thread; in "
                    "asynchronous code use  await ….dispatch(…)"
                )
            within = Within(broker.alias)
            _refuse_several(signature, within.connection)
            signature = _on(signature, within)
        return super().dispatch_signature_sync(signature)

    async def dispatch_signature(self, signature: Dispatchable[Any]) -> Job[Any]:
        """Dispatch; into the transaction of whoever waits for this, if it is one of Django's."""
        if self._is_waited_for():
            return await _there(self.dispatch_signature_sync)(signature)
        return await super().dispatch_signature(signature)

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `Camora.dispatch`, into the transaction of whoever waits for this, if it is one of Django's."""
        if self._is_waited_for():
            return await _there(self.dispatch_sync)(what, *args, **kwargs)
        return await super().dispatch(what, *args, **kwargs)

    def dispatch_many(self, signatures: Any) -> Any:
        """As `Camora.dispatch_many`, into the transaction of whoever waits for this, if it is one of Django's."""
        broker = self.broker
        if isinstance(broker, DjangoBroker) and self._is_waited_for():
            signatures = _all_on(signatures, Within(broker.alias))
        return super().dispatch_many(signatures)

    def _is_waited_for(self) -> bool:
        # asgiref notes here whose thread waits: only there can a transaction be open that this is meant to be part of.
        return isinstance(self.broker, DjangoBroker) and getattr(AsyncToSync.executors, "current", None) is not None


def _there(function: Callable[..., Job[Any]]) -> Callable[..., Awaitable[Job[Any]]]:
    """Run it in the thread that waits, where Django keeps its connection."""
    return sync_to_async(function, thread_sensitive=True)


def _all_on(signatures: Any, connection: Any) -> Any:
    if not isinstance(signatures, AsyncIterable):
        return (_on(signature, connection) for signature in signatures)

    async def each() -> AsyncIterator[Any]:
        async for signature in signatures:
            yield _on(signature, connection)

    return each()


def _on(signature: Any, connection: Within) -> Any:
    """The signature in Django's transaction; as it is where another one is named, or where it is not one job."""
    if not isinstance(signature, Signature) or signature.followed or signature.options_.connection is not None:
        return signature
    return signature.with_options(attrs.evolve(signature.options_, connection=connection))


def _refuse_several(what: Dispatchable[Any], connection: BaseDatabaseWrapper) -> None:
    if (not isinstance(what, Signature) or what.followed) and connection.in_atomic_block:
        raise ConfigurationError(
            f"{what!r} is more than one job, and cannot be part of the open transaction: dispatch it when that is "
            "over, transaction.on_commit(lambda: ….dispatch_sync())"
        )
