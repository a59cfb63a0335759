"""Events as log lines: one for each, with the event's fields as the record's own."""

from __future__ import annotations

import fnmatch
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from camora.builtin.observers.json_lines import JsonFormatter
from camora.builtin.observers.settings import NUMBERS, OFF, LoggingSettings
from camora.errors import ConfigurationError
from camora.interfaces.observer import Event, Observer

__all__ = ["LEVELS", "JsonFormatter", "LoggingObserver", "LoggingSettings", "configure_logging"]

LEVELS: Mapping[str, str] = {
    "job.dispatched": "debug",
    "job.received": "debug",
    "job.started": "debug",
    "job.retried": "warning",
    "job.failed": "error",
    "job.dead_lettered": "error",
    "job.expired": "warning",
    "job.lease_lost": "warning",
    # Workers and schedulers log these by themselves.
    "worker.started": "debug",
    "worker.stopping": "debug",
    "schedule.fired": "debug",
}
"""The levels of events that are not `info`."""

_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_MOMENTS = frozenset({"tick", "due"})
_SECONDS = frozenset({"duration", "waited", "delay"})


class LoggingObserver(Observer):
    """Logs each event in one line, at the moment of the event, with its fields in the record's `extra`.

    The fields are those of the event's class, with `event` for its kind: `event`, `job_id`, `task`, `queue`,
    `attempt`, `worker`, `sequence_number` where the broker has one, and what belongs to the kind: `duration`,
    `waited`, `delay`, `error`, `reason` … Raises `ConfigurationError` for levels of events that there are not.
    """

    def __init__(self, logger: str | logging.Logger = "camora.events", *, levels: Mapping[str, str] = {}) -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        try:
            settings = LoggingSettings(logger=self._logger.name, levels=dict(levels))
        except ValueError as error:
            raise ConfigurationError(f"LoggingObserver: {error}") from None
        self._levels = settings.levels
        self._of_kind: dict[str, int] = {}

    @property
    def name(self) -> str:
        """`logging`."""
        return "logging"

    async def observe(self, events: Sequence[Event]) -> None:
        """Log them."""
        for event in events:
            level = self._level(event.kind)
            if level < OFF and self._logger.isEnabledFor(level):
                self._logger.handle(self._record(event, level))

    def _level(self, kind: str) -> int:
        level = self._of_kind.get(kind)
        if level is None:
            said = LEVELS.get(kind, "info")
            for pattern, given in self._levels.items():
                if fnmatch.fnmatchcase(kind, pattern):
                    said = given
            level = self._of_kind[kind] = NUMBERS[said.lower()]
        return level

    def _record(self, event: Event, level: int) -> logging.LogRecord:
        fields = fields_of(event)
        extra = {f"{name}_" if name in _TAKEN else name: value for name, value in fields.items()}
        record = self._logger.makeRecord(self._logger.name, level, __file__, 0, line_of(fields), (), None, extra=extra)
        # When it happened, not when it was told.
        late = record.created - event.at / 1000
        record.created -= late
        record.msecs = float(event.at % 1000)
        record.relativeCreated -= late * 1000
        return record


def fields_of(event: Event) -> dict[str, Any]:
    """An event's fields, but for its moment; those that say nothing are left out."""
    told = {name: value for name, value in msgspec.structs.asdict(event).items() if name != "at"}
    fields: dict[str, Any] = {"event": event.kind}
    for name, value in told.items():
        if value in ("", (), 0) and name in _SILENT and not isinstance(value, float):
            continue
        fields[name] = round(value, 6) if name in _SECONDS else list(value) if isinstance(value, tuple) else value
    return fields


_SILENT = frozenset({"task", "queue", "attempt", "worker", "due", "error", "reason", "job_id", "sequence_number"})
"""Fields of which an empty one says only that nobody knows it, or that there is none."""


def line_of(fields: Mapping[str, Any]) -> str:
    """`job.succeeded task=shop:add job_id=… duration=0.012`: always one line, and safe to print."""
    told = [str(fields["event"])]
    told += [
        f"{name}={_moment(value) if name in _MOMENTS else _word(value)}"
        for name, value in fields.items()
        if name != "event"
    ]
    return " ".join(told)


def _moment(milliseconds: int) -> str:
    """`2026-11-21T12:30:30.000Z`."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_word, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    plain = text.isprintable() and not any(sign in text for sign in ' "=,') and text
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def configure_logging(level: str = "info", format: Literal["text", "json"] = "text") -> None:  # noqa: A002 -- its name
    """Log to stderr from this level on, as text or as one JSON object a line.

    Does nothing where the program has set up logging itself; that one uses `JsonFormatter`. May be repeated: the last
    call counts. Raises `ConfigurationError` for another level or format.
    """
    if level.lower() not in NUMBERS or level.lower() == "off":
        raise ConfigurationError(f"log level {level!r}: one of debug, info, warning, error, critical")
    if format not in ("text", "json"):
        raise ConfigurationError(f"log format {format!r}: one of text, json")
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, _Handler)]
    if root.handlers and not ours:
        return
    for handler in ours:
        root.removeHandler(handler)
    made = _Handler()
    made.setFormatter(JsonFormatter() if format == "json" else _TextFormatter())
    root.addHandler(made)
    root.setLevel(NUMBERS[level.lower()])


class _Handler(logging.StreamHandler[Any]):
    """To whatever `sys.stderr` is at the time: somebody may replace it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _TextFormatter(logging.Formatter):
    """A line for people. What a stranger wrote can neither begin a line of its own nor steer a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines()
        return "\n    ".join("".join(map(_visible, line)) for line in lines)


def _visible(sign: str) -> str:
    return sign if sign.isprintable() or sign == "\t" else ascii(sign)[1:-1]
