"""The sections of camora.toml that are the core's own. What plugins add, they describe themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_type_hints

import attrs

from camora.interfaces.pool import PoolSettings
from camora.interfaces.schedule import CatchUp, Overlap
from camora.options import TaskOptions
from camora.retry import RetryPolicy
from camora.settings import Duration, Secret, Size

__all__ = [
    "BrokerSection",
    "CodecSection",
    "LimitsSection",
    "OutboxSection",
    "PluginsSection",
    "QueueSection",
    "ResultsSection",
    "RetrySection",
    "ScheduleSection",
    "SigningSection",
    "TopSection",
    "UseSection",
    "types_in_a_file",
]


@attrs.frozen(kw_only=True)
class TopSection:
    """What stands above the first table."""

    app: str | None = None
    """Where the app is, as `module:attribute`, for the command line."""
    name: str | None = None
    """The app's name; schedules in a store that apps share belong to the app of this name."""


@attrs.frozen(kw_only=True)
class BrokerSection:
    """`[broker]`; the other keys are those of the broker whose scheme the URL has."""

    url: str = "memory://"
    """The broker's URL; its scheme picks the plugin."""


@attrs.frozen(kw_only=True)
class ResultsSection:
    """`[results]`; the other keys are those of the result backend whose scheme the URL has."""

    url: str | None = None
    """The result backend's URL. Without one, results are kept in the broker's own store."""
    ttl: Duration = 24 * 3600.0
    """How long a finished job is remembered."""
    enabled: bool = True
    """False keeps no results."""


@attrs.frozen(kw_only=True)
class OutboxSection:
    """`[outbox]`; the other keys are those of the broker whose scheme the URL has."""

    url: str | None = None
    """The database of your own tables, where the broker is another store: what is dispatched in a transaction waits
    there until a worker has relayed it."""


@attrs.frozen(kw_only=True)
class CodecSection:
    """`[codec]`; the other keys are those of the codec that is used."""

    use: str = "json"
    """The name of the codec for messages."""
    result: str | None = None
    """The name of another codec for results."""


@attrs.frozen(kw_only=True)
class SigningSection:
    """`[signing]`: messages are signed, and unsigned ones refused, when there is a key."""

    key: Secret | None = None
    """The one key; at least 32 bytes."""
    keys: tuple[Secret, ...] = ()
    """Several keys: the first one signs, all of them verify."""
    accept_unsigned: bool = False
    """Also run messages that are not signed, while a system is changed over."""
    max_age: Duration | None = None
    """How long after it was signed, or was due, a message is still run."""


@attrs.frozen(kw_only=True)
class RetrySection:
    """`[retry]`; the other keys are those of the policy that is used."""

    use: str = "durable"
    """The name of the retry policy."""


@attrs.frozen(kw_only=True)
class LimitsSection:
    """`[limits]`: sizes and times that hold for the whole app."""

    max_message_size: Size = 1024 * 1024
    """The largest message, in bytes, that is dispatched or decoded."""
    max_result_size: Size = 16 * 1024 * 1024
    """The largest result, in bytes."""
    dispatch_timeout: Duration = 10.0
    """How long a dispatch tries to reach the broker."""


@attrs.frozen(kw_only=True)
class QueueSection:
    """`[queues.NAME]`: settings of one queue; the other keys are those of its kind."""

    kind: str = "plain"
    """What kind of queue it is; plugins offer more."""


@attrs.frozen(kw_only=True)
class UseSection:
    """`[middleware]` and `[observers]`."""

    use: tuple[str, ...] = ()
    """Names, or `module:attribute` of your own, in order; "..." stands for all that are installed and not named."""


@attrs.frozen(kw_only=True)
class PluginsSection:
    """`[plugins]`."""

    disable: tuple[str, ...] = ()
    """Plugins, by their name or their distribution's, that are not loaded."""
    disabled: tuple[str, ...] = ()
    """Another name for `disable`."""
    local: tuple[str, ...] = ()
    """Modules of your own that are plugins."""


@attrs.frozen(kw_only=True)
class ScheduleSection:
    """`[[schedules]]`: one task at the moments of one trigger."""

    key: str
    """Names the schedule for ever."""
    task: str
    """The task's name."""
    args: tuple[Any, ...] = ()
    """Its arguments by position."""
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    """Its arguments by name."""
    cron: str | None = None
    """A cron expression, such as "0 9 * * 1-5"."""
    every: Any = None
    """An interval, such as "5m", or a table of its parts."""
    calendar: Mapping[str, Any] | None = None
    """Sets of seconds, minutes, hours, days, weekdays, months."""
    at: datetime | None = None
    """One moment."""
    trigger: Mapping[str, Any] | None = None
    """A plugin's trigger: its name as `use`, and its settings."""
    tz: str | None = None
    """The time zone of cron, calendar, and of a moment that names none."""
    group: str = "default"
    """Which schedulers it is for."""
    catch_up: CatchUp = "one"
    """Ticks missed while no scheduler ran: fire once for all of them, for each, or not at all."""
    overlap: Overlap = "allow"
    """When the job of the tick before is unfinished: fire all the same, or leave this tick out."""


# These classes take more than plain data; in a file their fields are what is said here.
_IN_A_FILE: dict[type, Mapping[str, Any]] = {
    RetryPolicy: {"delay": Duration, "delay_max": Duration | None, "on": tuple[str, ...]},
    TaskOptions: {
        "retry_policy": RetryPolicy | None,
        "timeout": Duration | None,
        "delay": Duration,
        "expires": Duration | None,
        "limit_by": str | None,
        "key": str | None,
        "key_ttl": Duration,
    },
    PoolSettings: {"timeout": Duration | None},
}


def types_in_a_file(cls: type[Any]) -> Mapping[str, Any]:
    """The types of a settings class's fields as a file gives them."""
    found = get_type_hints(cls, include_extras=True)
    for kind in reversed(cls.__mro__):
        found.update({name: hint for name, hint in _IN_A_FILE.get(kind, {}).items() if name in found})
    return found
