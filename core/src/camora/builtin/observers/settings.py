"""Settings of the observers that come with the core: light, because every start reads them."""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from camora.interfaces.observer import Event

__all__ = ["NUMBERS", "OFF", "LoggingSettings"]

OFF = logging.CRITICAL + 1
NUMBERS = {
    "off": OFF,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def _check_levels(_: Any, attribute: Any, levels: Mapping[str, Any]) -> None:
    if not levels:
        return
    from camora.interfaces.observer import Event

    known = sorted({kind.kind for kind in _kinds(Event) if kind.kind})
    for pattern, level in levels.items():
        where = f"{attribute.name}.{pattern!r}"
        if not any(fnmatch.fnmatchcase(kind, pattern) for kind in known):
            near = difflib.get_close_matches(pattern, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"{where}: there is no such event: {hint}")
        if not isinstance(level, str) or level.lower() not in NUMBERS:
            raise ValueError(f"{where} = {level!r}: expected one of {', '.join(NUMBERS)}")


def _kinds(base: type[Event]) -> Iterator[type[Event]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


@attrs.frozen(kw_only=True)
class LoggingSettings:
    """How events are logged.

    `logger` is the name of the logger. `levels` gives events another level, by kind or pattern, the last one that fits:
    `{"job.*" = "debug", "job.failed" = "critical", "worker.*" = "off"}`.
    """

    logger: str = "camora.events"
    levels: dict[str, str] = attrs.field(factory=dict, validator=_check_levels)
