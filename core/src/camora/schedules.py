"""The schedules of an app: declared in code and settings, or stored at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from camora.clock import Clock
from camora.connections import Connections
from camora.errors import ConfigurationError
from camora.events import EventBus
from camora.interfaces.codec import Codec
from camora.interfaces.schedule import CatchUp, Overlap, Trigger
from camora.message import Message
from camora.options import check_name
from camora.plugins import Catalog
from camora.signature import Signature

__all__ = ["DeclaredSchedule", "DeclaredSchedules", "Schedules"]


@attrs.frozen(kw_only=True)
class DeclaredSchedule:
    """A schedule as code or settings declare it."""

    key: str
    signature: Signature[Any]
    trigger: Trigger
    group: str
    catch_up: CatchUp
    overlap: Overlap
    origin: str


class DeclaredSchedules:
    """What one app declares; nothing here does I/O."""

    def __init__(self) -> None:
        self._by_key: dict[str, DeclaredSchedule] = {}

    def add(
        self,
        key: str,
        signature: Signature[Any],
        trigger: Trigger,
        *,
        group: str = "default",
        catch_up: CatchUp = "one",
        overlap: Overlap = "allow",
        origin: str = "code",
    ) -> None:
        """Declare one. Raises `ConfigurationError` for a key that is taken or impossible, or what is no trigger."""
        check_name("schedule", key)
        if key in self._by_key:
            raise ConfigurationError(f"two schedules are called {key!r}; a key names one for ever")
        if not isinstance(trigger, Trigger):
            raise ConfigurationError(
                f"schedule {key!r}: {trigger!r} is no trigger; give cron(…), every(…), calendar(…)"
            )
        self._by_key[key] = DeclaredSchedule(
            key=key,
            signature=signature,
            trigger=trigger,
            group=check_name("schedule group", group),
            catch_up=catch_up,
            overlap=overlap,
            origin=origin,
        )

    @property
    def by_key(self) -> Mapping[str, DeclaredSchedule]:
        """All of them."""
        return self._by_key


class Schedules:
    """Stored schedules at run time."""

    def __init__(
        self,
        *,
        connections: Connections,
        codec: Codec,
        clock: Clock,
        catalog: Catalog,
        build: Callable[[Signature[Any]], Message],
        signature: Callable[..., Signature[Any]],
        events: EventBus,
        declared: DeclaredSchedules,
    ) -> None:
        self._connections = connections
        self._codec = codec
        self._clock = clock
        self._catalog = catalog
        self._build = build
        self._signature = signature
        self._events = events
        self._declared = declared
