"""Log records as JSON: one object in one line, whatever a record holds."""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["JsonFormatter"]

_DEEPEST = 8
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has, or gets from a formatter; everything else is somebody's `extra`."""


class JsonFormatter(logging.Formatter):
    """One JSON object for each record: `time`, `level`, `logger`, `message`, then what its `extra` holds.

    `time` is ISO 8601 in UTC, with milliseconds. An exception becomes `exception`: `type`, `text` and `traceback`; a
    stack becomes `stack`. What JSON does not have is written as text. An extra that has one of these names gets an
    underscore behind it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line break. Never raises."""
        data: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        for name, value in vars(record).items():
            if name not in _OWN:
                data[f"{name}_" if name in data or name in ("exception", "stack") else name] = value
        if record.exc_info and record.exc_info[1] is not None:
            data["exception"] = _exception(record.exc_info[1])
        elif record.exc_text:
            data["exception"] = {"traceback": record.exc_text}
        if record.stack_info:
            data["stack"] = record.stack_info
        return json.dumps(_plain(data, 0), ensure_ascii=False, separators=(",", ":"))


def _time(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 -- arguments that do not fit their text, or that cannot be shown
        return f"{_text(record.msg)} {_text(record.args)}"


def _exception(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 -- formatting calls __str__ of strangers
        trace = "".join(traceback.format_tb(error.__traceback__))
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "text": _text(error, str), "traceback": trace}


def _plain(value: Any, depth: int) -> Any:
    """The same as what JSON has; never raises, and comes to an end also for what holds itself."""
    kind = type(value)
    if value is None or kind in (bool, int):
        return value
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if kind is str:
        return value.encode("utf-8", "replace").decode()
    if depth < _DEEPEST:
        try:
            if isinstance(value, Mapping):
                return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
            if isinstance(value, list | tuple | set | frozenset):
                return [_plain(item, depth + 1) for item in value]
        except Exception:  # noqa: BLE001 -- a stranger's collection, or one that is changed meanwhile
            return _text(value)
    return _text(value, str)


def _key(key: Any) -> str:
    return _text(key, str)


def _text(value: Any, show: Any = repr) -> str:
    try:
        return str(show(value)).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 -- a stranger's __repr__ may do anything
        return f"<{type(value).__name__} that cannot be shown>"
