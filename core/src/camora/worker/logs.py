"""Logging of a process that is Camora's own: to stderr, as text or as JSON lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from camora.errors import ConfigurationError

__all__ = ["FORMAT", "FORMATS", "LEVEL", "LEVELS", "one_of", "set_up_logging"]

LEVEL, FORMAT = "CAMORA_LOG_LEVEL", "CAMORA_LOG_FORMAT"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


def set_up_logging(environ: Mapping[str, str]) -> None:
    """Log as `CAMORA_LOG_LEVEL` and `CAMORA_LOG_FORMAT` say, unless the program has set up logging itself.

    Raises `ConfigurationError` for a word that is neither.
    """
    level = one_of(LEVELS, environ.get(LEVEL, "info"), LEVEL)
    shape = one_of(FORMATS, environ.get(FORMAT, "text"), FORMAT)
    if logging.getLogger().handlers:
        return
    logging.basicConfig(level=level.upper())
    formatter = _JsonLines() if shape == "json" else _text()
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)


def one_of(words: tuple[str, ...], text: str, name: str) -> str:
    """The word, in lower case. Raises `ConfigurationError` naming what it was said for."""
    if text.lower() not in words:
        raise ConfigurationError(f"{name} {text!r}: one of {', '.join(words)}")
    return text.lower()


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, text, and the traceback if there is one."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def _text() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
