"""From a signature to a message in the broker."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from camora.chain import Link, compose_dispatch
from camora.clock import Clock
from camora.connections import Connection, Connections
from camora.declarations import Declarations, check_options
from camora.errors import (
    BrokerUnavailable,
    ConfigurationError,
    DispatchUncertain,
    MessageTooLarge,
    PayloadError,
    UnsupportedCapability,
)
from camora.events import EventBus
from camora.interfaces.broker import Broker
from camora.interfaces.codec import Codec
from camora.interfaces.observer import JobDispatched
from camora.job import Job, JobsPort
from camora.message import Envelope, Message
from camora.options import DispatchOptions, TaskOptions
from camora.outbox import Outbox
from camora.parameters import Parameters
from camora.queue import Queue
from camora.signature import Signature
from camora.task import AnyTask

__all__ = ["Dispatcher", "NamedTask"]

_DEFAULTS = TaskOptions()


class NamedTask:
    """A task that is only a name here: its arguments are checked where it runs."""

    owned: Mapping[str, Any] | None = None

    def __init__(self, name: str, port: Any) -> None:
        self.name = name
        self.port = port
        self.config = _DEFAULTS


class Dispatcher:
    """Makes messages, passes them through the dispatch chain, and publishes them."""

    def __init__(
        self,
        *,
        connections: Connections,
        codec: Codec,
        clock: Clock,
        ids: Callable[[], str],
        parameters_of: Callable[[AnyTask], Parameters],
        jobs: JobsPort,
        events: EventBus,
        broker: Broker,
        declarations: Declarations,
        task_of: Callable[[str], AnyTask | None],
        largest: int,
        timeout: float,
        outbox: Outbox | None = None,
    ) -> None:
        self._outbox = outbox
        self._connections = connections
        self._codec = codec
        self._clock = clock
        self._ids = ids
        self._parameters_of = parameters_of
        self._jobs = jobs
        self._events = events
        self._broker = broker
        self._declarations = declarations
        self._task_of = task_of
        self._largest = min(largest, broker.capabilities.largest or largest)
        self._timeout = timeout
        self.chain: Callable[[Message], Awaitable[Message]] | None = None
        self.links: Sequence[Link] = ()
        """What `chain` is made of, but for its innermost end."""

    def build(
        self,
        signature: Signature[Any],
        *,
        first: int = 0,
        keyed: bool = True,
        job_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Message:
        """The message for a signature: bound, checked, unstructured. No I/O. Raises `DispatchError`s.

        With `first`, so many leading parameters are left open; not `keyed`, the task's own key is left out. `job_id`
        takes the place of the signature's own, and `headers` are added to its.
        """
        task, options = signature.task, signature.options_
        config: TaskOptions = task.config
        if isinstance(task, NamedTask):
            args, kwargs = list(signature.args), dict(signature.kwargs)
        else:
            args, kwargs = self._parameters_of(task).out(signature.args, signature.kwargs, skip=first)
        now = self._clock.now_ms()
        due = options.due_ms(now, config.delay) if options.eta or options.delay or config.delay else 0
        message = Message(
            id=job_id or options.job_id or self._ids(),
            task=task.name,
            queue=self._queue(options.queue, task) if options.queue else config.queue,
            args=args,
            kwargs=kwargs,
            headers={**(options.headers or {}), **(headers or {})} if options.headers or headers else {},
            created=now,
            due=due if due > now else 0,
            expires=options.expires_ms(now, config.expires),
            priority=config.priority if options.priority is None else options.priority,
            timeout=options.timeout,
            retry=None if options.retry_policy is None else options.retry_policy.to_wire(),
            key=_key(config, options, task, args, kwargs) if keyed else options.key,
            # An int, because a default is left out of the encoding only when it is the very same object.
            key_ttl=(config.key_ttl if options.key_ttl is None else options.key_ttl) or 0
            if keyed or options.key
            else 0,
        )
        if message.due or message.priority or message.key:
            self._check(message, now)
        return message

    def build_for_later(self, signature: Signature[Any]) -> Message:
        """As `build`, for a message that is stored first: options of plugins do not travel, so none may be given."""
        if owned := signature.options_.owned:
            name = next(iter(owned))
            raise ConfigurationError(
                f"{signature.task.name}: {name!r} is for one dispatch, and a schedule's jobs are sent later: give it "
                f"to the task, @app.task({name}=…)"
            )
        return self.build(signature)

    def _queue(self, given: str | Queue, task: Any) -> str:
        if isinstance(given, str):
            return given
        return self._declarations.name_of(given, f"a dispatch of {task.name!r}", broker=self._broker)

    def owned(self, signature: Signature[Any]) -> Mapping[str, Any] | None:
        """The options of plugins, the dispatch's over the task's; mostly none. Raises `UnsupportedCapability`."""
        task, owned = signature.task, signature.options_.owned
        if owned is None and task.owned is None:
            return None
        found = {**(task.owned or {}), **(owned or {})}
        check_options(self._broker, found, task.name)
        return found

    def _check(self, message: Message, now: int) -> None:
        able = self._broker.capabilities
        if message.priority and not able.priority:
            # It may grow with what is declared, of which a broker hears when it is first used.
            self._broker.declare(self._declarations.queues)
            able = self._broker.capabilities
        for asked, name in ((message.due, "delay"), (message.priority, "priority"), (message.key, "dedup")):
            if asked and not getattr(able, name):
                raise UnsupportedCapability(
                    f"{message.task}: this broker has no {name} ({_USES[name]}); "
                    "the SQLite broker (camora-sql) has it, for example",
                    capability=name,
                )
        if able.longest_delay is not None and message.due - now > able.longest_delay * 1000:
            raise UnsupportedCapability(
                f"{message.task}: due in {(message.due - now) / 1000:.0f} s; this broker delays at most "
                f"{able.longest_delay:.0f} s",
                capability="delay",
            )

    def envelope(self, message: Message, owned: Mapping[str, Any] | None) -> Envelope:
        """The encoded message, addressed, with the options of plugins. Raises `EncodeError` or `MessageTooLarge`."""
        body = self._codec.encode(message)
        if len(body) > self._largest:
            raise MessageTooLarge(
                f"{message.task}: the message has {len(body)} bytes; at most {self._largest} may travel. "
                "Store the data elsewhere and send where it is",
                size=len(body),
                limit=self._largest,
            )
        return Envelope(
            id=message.id,
            task=message.task,
            queue=message.queue,
            body=body,
            due=message.due,
            expires=message.expires,
            priority=message.priority,
            key=message.key,
            key_ttl=message.key_ttl,
            options=owned,
        )

    async def one(self, signature: Signature[Any]) -> Job[Any]:
        """Dispatch one job."""
        message = self.build(signature)
        owned = self.owned(signature)
        if signature.options_.connection is not None:
            return await self._within(signature.options_.connection, message, owned)
        if self.chain is not None:
            # The chain ends in publishing; what middleware changed is in the message it hands on.
            chain = self.chain if signature.options_.owned is None else self._chain_with(owned)
            message = await chain(message)
            if not isinstance(message, Message):
                raise ConfigurationError(
                    f"a middleware's dispatch returned {message!r}; it returns what call_next(message) has returned"
                )
            return Job(message.id, message.task, self._jobs)
        connection = self._connections.ready() or await self._connect()
        [job_id] = await self._publish(connection, [self.envelope(message, owned)])
        return Job(job_id, message.task, self._jobs)

    async def _within(self, transaction: Any, message: Message, owned: Mapping[str, Any] | None) -> Job[Any]:
        """Through the chain, too, but into the caller's transaction: not repeated, for it is the caller's to end."""
        self._declarations.tell(self._broker)  # it need not be open

        async def publish(message: Message) -> Message:
            joining = self._outbox or self._broker
            [job_id] = await joining.publish_within(transaction, [self.envelope(message, owned)])
            return message if job_id == message.id else _with_id(message, job_id)

        message = await (compose_dispatch(self.links, publish) or publish)(message)
        return Job(message.id, message.task, self._jobs)

    def within_here(self, signature: Signature[Any]) -> Job[Any]:
        """Dispatch into a synchronous connection's transaction, in the caller's thread, where that connection lives.

        Raises `ConfigurationError` when a middleware waits for the event loop: there is none here.
        """
        message = self.build(signature)
        step = self._within(signature.options_.connection, message, self.owned(signature))
        try:
            step.send(None)
        except StopIteration as done:
            job: Job[Any] = done.value
            return job
        step.close()
        raise ConfigurationError(
            f"{message.task}: dispatch_sync with connection= cannot wait, and a middleware's dispatch (or an "
            "asynchronous connection) did; use  await ….dispatch(…)"
        )

    async def publish_message(self, message: Message) -> Message:
        """The innermost end of the dispatch chain; of the options of plugins, the task's own go with it."""
        task = self._task_of(message.task)
        return await self._publish_one(message, None if task is None else task.owned)

    def _chain_with(self, owned: Mapping[str, Any] | None) -> Callable[[Message], Awaitable[Message]]:
        """The chain for one dispatch that has options of plugins."""

        async def publish(message: Message) -> Message:
            return await self._publish_one(message, owned)

        return compose_dispatch(self.links, publish) or publish

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Publish what is made already, as a dispatch does: trying for as long as one may take."""
        connection = self._connections.ready() or await self._connect()
        return await self._publish(connection, envelopes)

    async def _publish_one(self, message: Message, owned: Mapping[str, Any] | None) -> Message:
        connection = self._connections.ready() or await self._connect()
        [job_id] = await self._publish(connection, [self.envelope(message, owned)])
        return message if job_id == message.id else _with_id(message, job_id)

    async def batch(self, signatures: Sequence[Signature[Any]]) -> list[Job[Any]]:
        """Dispatch a batch in one step of the broker."""
        if self.chain is not None or any(signature.options_.connection is not None for signature in signatures):
            return [await self.one(signature) for signature in signatures]
        envelopes = [self.envelope(self.build(signature), self.owned(signature)) for signature in signatures]
        connection = self._connections.ready() or await self._connect()
        ids = await self._publish(connection, envelopes)
        return [Job(job_id, envelope.task, self._jobs) for job_id, envelope in zip(ids, envelopes, strict=True)]

    async def _connect(self) -> Connection:
        """Connect, trying for as long as a dispatch may take."""
        connection: Connection = await self._retrying(self._connections.get)
        return connection

    async def _publish(self, connection: Connection, envelopes: Sequence[Envelope]) -> Sequence[str]:
        ids = await self._try_to_publish(connection, envelopes)
        if self._events.active:
            now = self._clock.now_ms()
            for job_id, envelope in zip(ids, envelopes, strict=True):
                if job_id == envelope.id:  # else it was a repetition of a job that is there already
                    self._events.emit(
                        JobDispatched(
                            at=now, job_id=job_id, task=envelope.task, queue=envelope.queue, attempt=1, due=envelope.due
                        )
                    )
        return ids

    async def _try_to_publish(self, connection: Connection, envelopes: Sequence[Envelope]) -> Sequence[str]:
        if not connection.broker.capabilities.shared:
            return await connection.broker.publish(envelopes)  # no network, no waiting
        ids: Sequence[str] = await self._retrying(
            lambda: connection.broker.publish(envelopes),
            uncertain=envelopes[0].id,
            repeatable=bool(connection.broker.capabilities.dedup),
        )
        return ids

    async def _retrying(
        self, step: Callable[[], Awaitable[Any]], *, uncertain: str | None = None, repeatable: bool = True
    ) -> Any:
        """Try a step until it works or `dispatch_timeout` is over; an unclear answer is repeated under the same ids."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        doubt: DispatchUncertain | None = None
        before = ""
        for tries in itertools.count():
            began = loop.time()
            try:
                async with asyncio.timeout_at(deadline):
                    return await step()
            except DispatchUncertain as error:
                doubt = error
                if not repeatable or error.final:
                    raise
                last: Exception = error
            except BrokerUnavailable as error:
                last = error
            except TimeoutError as error:
                # What the try before was refused for is the likely reason, whatever became of the one that was cut off.
                told = f"the broker did not answer within {self._timeout:g} s{before}"
                if uncertain is None:
                    raise BrokerUnavailable(told) from error
                again = f"with job_id={uncertain!r} cannot double it" if repeatable else "may run it twice"
                raise DispatchUncertain(
                    f"{told}: the job may be enqueued. Dispatching again {again}", job_id=uncertain
                ) from error
            pause = random.uniform(0, min(1.0, 0.05 * 2**tries))  # noqa: S311 -- jitter
            # One that is cut off leaves open what became of it: none is begun that has no time to end.
            needed = min(2 * (loop.time() - began), self._timeout / 10)
            if loop.time() + pause + needed >= deadline:
                raise doubt or last
            before = f" (the try before: {last})"
            await asyncio.sleep(pause)
        raise AssertionError  # the loop above has no end of its own


_USES = {"delay": "delay, eta", "priority": "priority", "dedup": "idempotency keys"}


def _with_id(message: Message, job_id: str) -> Message:
    import msgspec

    return msgspec.structs.replace(message, id=job_id)


def _key(
    config: TaskOptions, options: DispatchOptions, task: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> str | None:
    if options.key is not None:
        return options.key
    if config.key is None:
        return None
    try:
        made = config.key.format(*args, **kwargs) if isinstance(config.key, str) else config.key(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 -- the user's function, or format string
        raise PayloadError(
            f"{task.name}: its key cannot be made from the arguments: {error!r}", task=task.name
        ) from None
    if not isinstance(made, str):
        raise PayloadError(f"{task.name}: its key is {made!r}; a key is a text", task=task.name)
    return made
