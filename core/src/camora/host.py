"""The app, as its extensions see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from camora.binding import Binding
from camora.chain import compose_dispatch
from camora.clock import Clock
from camora.connections import Connection, Connections
from camora.dispatcher import Dispatcher
from camora.errors import PayloadError
from camora.interfaces.codec import Codec
from camora.interfaces.types import Misfit
from camora.job import Job, JobsPort
from camora.message import Envelope, Message
from camora.registry import TaskRegistry
from camora.settings import AppSettings
from camora.signature import Signature
from camora.task import AnyTask

__all__ = ["AppHost"]


class AppHost:
    """See `camora.interfaces.extension.Host`."""

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        codec: Codec,
        result_codec: Codec,
        settings: AppSettings,
        logger: logging.Logger,
        jobs: JobsPort,
        new_id: Callable[[], str],
        port: Any,
        tasks: TaskRegistry,
        binding: Binding,
        connections: Connections,
        dispatcher: Dispatcher,
    ) -> None:
        self.name = name
        self.clock = clock
        self.codec = codec
        self.result_codec = result_codec
        self.settings = settings
        self.logger = logger
        self.jobs = jobs
        self.new_id = new_id
        self._port = port
        self._tasks = tasks
        self._binding = binding
        self._connections = connections
        self._dispatcher = dispatcher

    @property
    def port(self) -> Any:
        """What its tasks have as `port`."""
        return self._port

    def task(self, name: str) -> AnyTask | None:
        """The registered task of this name."""
        return self._tasks.get(name)

    def message(
        self,
        signature: Signature[Any],
        *,
        first: int = 0,
        job_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Message:
        """The message for a signature, without the key of its task. Raises `DispatchError`s."""
        self._dispatcher.owned(signature)  # what the broker does not read is refused now, as when it is dispatched
        return self._dispatcher.build(signature, first=first, keyed=False, job_id=job_id, headers=headers)

    async def pass_through(self, message: Message) -> Message:
        """The message as the app's middleware hands it on when it is dispatched. Publishes nothing."""
        if self._dispatcher.chain is None:  # no link of the app has anything to do with dispatches
            return message
        return await (compose_dispatch(self._dispatcher.links, _as_it_is) or _as_it_is)(message)

    def envelope(self, message: Message) -> Envelope:
        """The encoded message, with the options that its task has for the broker."""
        task = self._tasks.get(message.task)
        return self._dispatcher.envelope(message, None if task is None else task.owned)

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Publish as a dispatch does, trying for `dispatch_timeout`; raises as a dispatch."""
        return await self._dispatcher.publish(envelopes)

    @property
    def opened(self) -> Connection | None:
        """What is open in this loop, without waiting; None where that is not known at once."""
        return self._connections.ready()

    async def stores(self) -> Connection:
        """What is open in this loop; opens it first where that is needed. Raises `BrokerUnavailable`."""
        return self._connections.ready() or await self._connections.get()

    def value(self, task: str, encoded: bytes) -> Any:
        """An encoded result as the annotated return type of the task of this name; plain data if it is unknown here."""
        return self._binding.result_into(self._tasks.get(task), self.result_codec.decode_value(encoded))

    def encode(self, value: Any, kind: Any = Any) -> bytes:
        """Any value as results are encoded, by this annotated type. Raises `EncodeError`."""
        return self.result_codec.encode_value(self._binding.value_out(kind, value))

    def decode(self, encoded: bytes, kind: Any = Any) -> Any:
        """What `encode` has made, as a value of this type. Raises `PayloadError` where it does not fit."""
        data = self.result_codec.decode_value(encoded)
        try:
            return self._binding.value_into(kind, data)
        except Misfit as error:
            path, why = error.places[0]
            raise PayloadError(": ".join(filter(None, (path.removeprefix("."), why))), field=path) from None

    def job(self, job_id: str, task: str = "") -> Job[Any]:
        """A handle."""
        return Job(job_id, task, self.jobs)


async def _as_it_is(message: Message) -> Message:
    return message
