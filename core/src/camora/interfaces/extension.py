"""Extensions: what a plugin adds to every app beside which it is installed.

Where a middleware wraps one job at a time, an extension has a say in what follows the end of jobs, and runs beside
workers. It is made once for each app, and off only where its plugin is disabled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from camora.clock import Clock
from camora.dispatchable import Composer
from camora.interfaces.broker import Broker
from camora.interfaces.codec import Codec
from camora.interfaces.journal import Journal
from camora.interfaces.middleware import Middleware
from camora.interfaces.results import ResultBackend
from camora.interfaces.workflows import WorkflowStore
from camora.job import Job, JobsPort
from camora.message import Envelope, Message
from camora.outcome import JobRecord
from camora.settings import AppSettings
from camora.signature import Signature
from camora.task import AnyTask

__all__ = ["Ending", "Extension", "FollowUp", "Host", "HostStores"]


class HostStores(Protocol):
    """What an app has open in the running event loop. The app closes it."""

    @property
    def broker(self) -> Broker:
        """The broker."""

    @property
    def results(self) -> ResultBackend | None:
        """The result backend, if the app keeps results."""

    async def workflows(self) -> WorkflowStore | None:
        """The store of workflows, of the broker or of the result backend; None where neither keeps one."""

    async def journal(self) -> Journal | None:
        """The journal; as `workflows`."""


class Host(Protocol):
    """The app, as an extension sees it. Safe to keep; nothing here does I/O unless it is awaited."""

    name: str
    clock: Clock
    codec: Codec
    result_codec: Codec
    settings: AppSettings
    logger: logging.Logger
    jobs: JobsPort
    new_id: Callable[[], str]

    @property
    def port(self) -> Any:
        """What its tasks have as `port`."""

    def task(self, name: str) -> AnyTask | None:
        """The registered task of this name."""

    def message(
        self,
        signature: Signature[Any],
        *,
        first: int = 0,
        job_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Message:
        """The message for a signature: bound, checked, unstructured. Raises `DispatchError`s.

        With `first=1` its first parameter is left open: it is filled where the job runs. `job_id` takes the place of
        the signature's own, and `headers` are added to its.
        """

    async def pass_through(self, message: Message) -> Message:
        """The message as the app's middleware hands it on when it is dispatched. Publishes nothing."""

    def envelope(self, message: Message) -> Envelope:
        """The encoded message, addressed. Raises `EncodeError` or `MessageTooLarge`."""

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Publish as a dispatch does, trying for `dispatch_timeout`; raises as a dispatch."""

    @property
    def opened(self) -> HostStores | None:
        """What is open in this loop, without waiting; None where that is not known at once: then ask `stores`."""

    async def stores(self) -> HostStores:
        """What is open in this loop; opens it first where that is needed. Raises `BrokerUnavailable`."""

    def value(self, task: str, encoded: bytes) -> Any:
        """An encoded result as the annotated return type of the task of this name; plain data if it is unknown here."""

    def encode(self, value: Any, kind: Any = Any) -> bytes:
        """Any value as results are encoded, by this annotated type. Raises `EncodeError`."""

    def decode(self, encoded: bytes, kind: Any = Any) -> Any:
        """What `encode` has made, as a value of this type. Raises `PayloadError` where it does not fit."""

    def job(self, job_id: str, task: str = "") -> Job[Any]:
        """A handle."""


class Ending(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A job that ends: how, and all that is known of it. `record` is as it is about to be stored.

    Where the app keeps no results, or the task none, there is a record all the same; it goes nowhere.
    """

    message: Message
    record: JobRecord


class FollowUp(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What follows the end of a job."""

    successors: tuple[Envelope, ...] = ()
    """Published before the job is acknowledged, in one step with that where the broker can. Their ids must follow from
    the job's: all of this may happen again."""
    records: tuple[JobRecord, ...] = ()
    """Of other jobs: stored before that."""
    instead: JobRecord | None = None
    """Stored for this job in place of its own record: what an earlier run of it came to, which stands."""


class Extension:
    """What a plugin adds to an app. Override what is needed; all of it is optional.

    Made by a `Provider` of the hook `camora_extensions`, without I/O.
    """

    header: str = ""
    """The name of a header: `ended` and `requeued` are called for messages that carry it, and for no others."""
    middleware: Sequence[Middleware] = ()
    """Links of the app's chain: before the app's own of the same phase."""
    composer: Composer | None = None
    """What `>>` and `task.map` are done with; at most one extension has one."""

    def attach(self, host: Host) -> None:
        """Called once, while the app is made."""

    async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
        """Jobs end in these ways: one answer each, in order.

        Called before their settlement, and again when that is repeated: by the same worker, or by another one, which
        ran the job again. So all it does must be the same when done twice. It may use the app's stores. What it raises
        is taken for trouble that passes: it is called again, and nothing is settled meanwhile. It is called too for
        jobs that end outside of a worker, because somebody cancels them.
        """
        return [FollowUp() for _ in endings]

    async def requeued(self, messages: Sequence[Message]) -> Sequence[Message]:
        """These dead letters are about to be put back into their queues; answers with each as it is to be put back.

        Only headers may be changed. May be called again for the same.
        """
        return messages

    async def beside(self) -> None:
        """Run beside a worker, in its loop, until cancelled; called once by each worker. What it raises is logged."""
