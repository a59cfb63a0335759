"""Small extensions, and apps that have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import attrs
from camora import Camora, Provider, hookimpl, plugins
from camora.errors import BrokerUnavailable
from camora.interfaces import Ending, Extension, FollowUp, Host
from camora.message import Message
from camora.outcome import JobRecord, Status
from camora.plugins import Catalog, Source

NEXT = "test-next"
"""The header of jobs that something follows: the name of the task."""


@attrs.frozen(kw_only=True)
class NextSettings:
    """Settings of `Next`."""

    greeting: str = "hello"
    """What it says."""
    times: int = 1
    """How often."""


class Next(Extension):
    """When a job has ended, the task in its header gets the status of it, and its value."""

    header = NEXT

    def __init__(self, settings: NextSettings | None = None) -> None:
        self.settings = settings or NextSettings()
        self.host: Host
        self.seen: list[Ending] = []
        self.batches: list[int] = []
        self.back: list[Message] = []
        self.trouble: list[Exception] = []
        """Raised, one with each call, before it answers."""
        self.records: tuple[JobRecord, ...] = ()
        self.instead: Callable[[Ending], JobRecord | None] = lambda _: None

    def attach(self, host: Host) -> None:
        self.host = host

    async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
        self.batches.append(len(endings))
        if self.trouble:
            raise self.trouble.pop(0)
        self.seen += endings
        return [self._follow(ending) for ending in endings]

    def _follow(self, ending: Ending) -> FollowUp:
        name = ending.message.headers[NEXT]
        successors = []
        if name:
            task = self.host.task(name)
            assert task is not None
            value = ending.record.value
            told = None if value is None else self.host.value(ending.message.task, value)
            signature = task.s(ending.record.status.value, told).options(job_id=f"{ending.message.id}.next")
            successors.append(self.host.envelope(self.host.message(signature)))
        return FollowUp(successors=tuple(successors), records=self.records, instead=self.instead(ending))

    async def requeued(self, messages: Sequence[Message]) -> None:
        self.back += messages


def away() -> BrokerUnavailable:
    """A store that is away."""
    return BrokerUnavailable("the store is away")


def earlier(ending: Ending, status: Status, **more: Any) -> JobRecord:
    """What an earlier run of a job came to."""
    return JobRecord(id=ending.message.id, task=ending.message.task, status=status, finished=1, **more)


def offering(*providers: Provider[Any], name: str = "following") -> Source:
    """A plugin of these extensions."""
    module: Any = SimpleNamespace()

    @hookimpl
    def camora_extensions() -> list[Provider[Any]]:
        return list(providers)

    module.camora_extensions = camora_extensions
    return Source(name=name, distribution=f"camora-{name}", version="1", load=lambda: module)


def installed(*sources: Source, disable: Sequence[str] = ()) -> Catalog:
    """What is installed, without other extensions, and these plugins."""
    others = [source for source in plugins.discover() if source.name != "workflows"]
    return plugins.load([*others, *sources], disable=disable)


def app_with(extension: Extension, *, broker: str = "memory://", **keys: Any) -> Camora:
    """An app that has this extension, which is made once and is the same in `swapped`."""
    provider: Provider[Any] = Provider("next", lambda _: extension, help="Test.")
    return Camora(broker, catalog=installed(offering(provider)), **keys)
