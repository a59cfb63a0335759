"""Durations, sizes and rates as people write them: `30s`, `10MB`, `100/m`."""

from __future__ import annotations

import re
from datetime import timedelta

import attrs

__all__ = ["Rate", "duration", "duration_text", "rate", "size", "size_text"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_BYTES = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|[smhdw])", re.ASCII)
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", re.ASCII)
_RATE = re.compile(r"\s*(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*(ms|[smhdw])\s*", re.ASCII)


@attrs.frozen
class Rate:
    """At most `most` starts in any `per` seconds."""

    most: int
    per: float

    def __str__(self) -> str:
        for unit, length in _SECONDS.items():
            if self.per == length:
                return f"{self.most}/{unit}"
        return f"{self.most}/{self.per:g}s"


def duration(value: object) -> float:
    """Seconds, from a number, a `timedelta`, or a text such as `500ms`, `30s`, `1h30m`, `1d`.

    Raises `ValueError` that says what was expected.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _float(value)
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
            return float(text)
        parts = list(_PART.finditer(text))
        if parts and "".join(part.group(0) for part in parts) == text:
            return sum(float(part.group(1)) * _SECONDS[part.group(2)] for part in parts)
    raise ValueError(f'{value!r} is no duration: expected seconds, or a text such as "30s", "5m", "1h30m", "1d"')


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError("too large") from None


def duration_text(seconds: float) -> str:
    """Seconds in the largest unit that gives a whole number: `90s`, `2m`, `1d`; `duration` reads it again."""
    unit = next((name for name in ("w", "d", "h", "m", "s") if seconds and seconds % _SECONDS[name] == 0), None)
    if unit is not None:
        return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds * 1000 == round(seconds * 1000) else f"{seconds:f}s"


def size(value: object) -> int:
    """Bytes, from a number or a text such as `512KB` (1000s) or `1MiB` (1024s). Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value.strip().isdecimal():
            return int(value)
        found = _SIZE.fullmatch(value)
        if found and found.group(2).lower() in _BYTES:
            return round(float(found.group(1)) * _BYTES[found.group(2).lower()])
    raise ValueError(f'{value!r} is no size: expected bytes, or a text such as "512KB", "10MB", "1GiB"')


def size_text(count: int) -> str:
    """Bytes in the largest unit that gives a whole number: `1MiB`, `500KB`, `100B`; `size` reads it again."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if count and count % _BYTES[unit.lower()] == 0:
            return f"{count // _BYTES[unit.lower()]}{unit}"
    return f"{count}B"


def rate(value: object) -> Rate:
    """A rate, from a text such as `100/m`, `10/s`, `5/10s`, `1000/d`. Raises `ValueError`."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found and int(found.group(1)) > 0:
        per = float(found.group(2) or 1) * _SECONDS[found.group(3)]
        if per > 0:
            return Rate(int(found.group(1)), per)
    raise ValueError(f'{value!r} is no rate: expected a text such as "10/s", "100/m", "5/10s" or "1000/d"')
