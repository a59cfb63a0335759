"""A queue as an app declares it: a name, how it is worked through, and in derived classes what kind of queue it is."""

from __future__ import annotations

from typing import Any

import attrs

from camora.units import Rate
from camora.validators import check_name, rate_or_none, whole

__all__ = ["Queue", "distribution_of", "queue_text"]


def _queue_name(_: Any, attribute: Any, value: Any) -> None:
    del attribute
    check_name("queue", value)


@attrs.frozen
class Queue:
    """A queue with settings of its own; wherever a queue is named, its name may stand instead.

    Plugins derive other kinds from it, frozen attrs classes with fields of their own, which a broker of theirs knows
    how to serve: see `Broker.declare`. Only the name travels with a message. Raises `ConfigurationError`.
    """

    name: str = attrs.field(validator=_queue_name)
    """The queue's name."""
    concurrency: int | None = attrs.field(default=None, validator=whole(1, 1_000_000), kw_only=True)
    """How many of its jobs one worker process runs at once."""
    rate_limit: Rate | None = attrs.field(default=None, converter=rate_or_none, kw_only=True)
    """How many of its jobs may start in a time, over all workers, such as "100/m"."""


def queue_text(queue: Queue) -> str:
    """A queue as one would write it: `PubSubQueue('bus', rate_limit='5/s')`; what is as by default is left out."""
    parts = [repr(queue.name)]
    for field in attrs.fields(type(queue)):
        value = getattr(queue, field.name)
        if field.name != "name" and field.repr and value != field.default:
            shown = str(value) if isinstance(value, Rate) else value
            parts.append(f"{field.alias or field.name}={shown!r}")
    return f"{type(queue).__qualname__.rpartition('>.')[2]}({', '.join(parts)})"


def distribution_of(cls: type[Any]) -> str:
    """The distribution whose plugin a class comes with; empty where no plugin is installed under its package."""
    from importlib.metadata import entry_points

    package = cls.__module__.partition(".")[0]
    for point in entry_points(group="camora"):
        if point.dist is not None and point.module.partition(".")[0] == package:
            return point.dist.name
    return ""
