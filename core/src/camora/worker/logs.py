"""Logging of a process that is Camora's own: to stderr, as text or as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping

from camora.builtin.observers.json_lines import JsonFormatter
from camora.errors import ConfigurationError
from camora.masking import masked, masked_data

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
    formatter = (
        JsonFormatter() if shape == "json" else _Text(colours=sys.stderr.isatty() and not environ.get("NO_COLOR"))
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Masked(formatter, as_json=shape == "json"))


def one_of(words: tuple[str, ...], text: str, name: str) -> str:
    """The word, in lower case. Raises `ConfigurationError` naming what it was said for."""
    if text.lower() not in words:
        raise ConfigurationError(f"{name} {text!r}: one of {', '.join(words)}")
    return text.lower()


class _Masked(logging.Formatter):
    """Another formatter's lines, without the secrets of URLs: whoever raised an error may have quoted one."""

    def __init__(self, inner: logging.Formatter, *, as_json: bool) -> None:
        super().__init__()
        self._inner = inner
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        line = self._inner.format(record)
        if "://" not in line:
            return line
        if self._as_json:
            return json.dumps(masked_data(json.loads(line)), ensure_ascii=False, separators=(",", ":"))
        return masked(line)


_COLOURS = {
    logging.DEBUG: "2",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}


class _Text(logging.Formatter):
    def __init__(self, *, colours: bool) -> None:
        super().__init__("%(asctime)s %(level)s %(message)s", datefmt="%H:%M:%S")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname:<7}"
        colour = _COLOURS.get(record.levelno)
        record.level = f"\x1b[{colour}m{level}\x1b[0m" if self._colours and colour else level
        return super().format(record)
