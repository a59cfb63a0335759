"""Settings as attrs classes: structured strictly, with every mistake reported at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import attrs

from camora.errors import SettingsError
from camora.structuring import BYTES, SECONDS, SECRET, Structuring
from camora.units import duration, size

__all__ = ["AppSettings", "Duration", "Secret", "Size", "WorkerSettings", "mask_url", "structure_settings"]

T = TypeVar("T")

Duration = Annotated[float, SECONDS]
"""Annotates a setting in seconds, which settings may also say with units: `30`, `"30s"`, `"1h30m"`."""
Size = Annotated[int, BYTES]
"""Annotates a setting in bytes, which settings may also say with units: `1024`, `"512KB"`, `"1GiB"`."""
Secret = Annotated[str, SECRET]
"""Annotates a setting whose text is never shown."""

# A password may hold anything, `@`, `/` and line breaks too: up to the last `@` all of it is taken for one.
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/@:?#\s]*:).*@", re.DOTALL)
_SECRET_QUERY = re.compile(r"(?i)([?&;][^=&;]*(?:password|passwd|pwd|secret|token|key|sig|proxy)[^=&;]*=)[^&;]*")


def mask_url(url: str) -> str:
    """The URL with its password, and secrets in its query, replaced by `***`."""
    return _SECRET_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1***@", url))


def structure_settings(cls: type[T], given: Mapping[str, Any], *, where: str) -> T:
    """An attrs settings class from plain data, in which texts may stand for numbers.

    Durations and sizes may have units where the class says `Duration` or `Size`. Raises `SettingsError` holding every
    problem, one text each.
    """
    structuring = _Masked(lenient=True)
    made: T = structuring.table(cls, given, ())
    if not structuring.problems:
        return made
    problems = []
    for problem in structuring.problems:
        key = "" if problem.unknown else f"{'.'.join(map(str, problem.path))}: "
        problems.append(f"{where}: {key.removeprefix(': ')}{problem.text}")
    raise SettingsError("\n".join(problems), problems=problems)


class _Masked(Structuring):
    """Shows URLs without their passwords, and secrets not at all."""

    def __init__(self, *, lenient: bool) -> None:
        super().__init__(lenient=lenient)
        self._hidden: set[tuple[str | int, ...]] = set()

    def hide(self, path: tuple[str | int, ...]) -> None:
        self._hidden.add(path)

    def shown(self, given: Any, path: tuple[str | int, ...]) -> str:
        return "***" if path in self._hidden else mask_url(super().shown(given, path))

    def told(self, error: BaseException, path: tuple[str | int, ...]) -> str:
        return "not accepted" if path in self._hidden else mask_url(super().told(error, path))


def _number(words: str, kind: type[int | float], *, zero: bool = False) -> Callable[[Any, Any, Any], None]:
    """A validator: a number of this kind, more than 0; also 0 itself where `zero`."""
    bound = "0 or more" if zero else "more than 0"

    def check(_: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise SettingsError(f"{attribute.name} = {value!r}: expected {words}")
        if not (value >= 0 if zero else value > 0) or math.isinf(value):
            raise SettingsError(f"{attribute.name} = {value!r}: must be {bound}")

    return check


# What is no duration or size stays as it is, for the validator to name.


def _as_seconds(value: float | str | timedelta) -> float:
    try:
        return duration(value)
    except ValueError:
        return value  # type: ignore[return-value]


def _as_bytes(value: int | str) -> int:
    try:
        return size(value)
    except ValueError:
        return value  # type: ignore[return-value]


def _as_bytes_or_none(value: int | str | None) -> int | None:
    return None if value is None else _as_bytes(value)


_or_none = attrs.validators.optional
_whole, _seconds, _bytes = _number("a whole number", int), _number(SECONDS.words, float), _number(BYTES.words, int)


@attrs.frozen(kw_only=True)
class AppSettings:
    """Limits of an app. Sizes are bytes, durations seconds, or texts with units such as "10MB" and "30s".

    `max_message_size` holds for what is dispatched and for what is decoded. `dispatch_timeout` is how long a dispatch
    tries to reach the broker. `result_ttl` is how long a finished job is remembered. Raises `SettingsError` that names
    the field.
    """

    max_message_size: Size = attrs.field(default=1024 * 1024, converter=_as_bytes, validator=_bytes)
    max_result_size: Size = attrs.field(default=16 * 1024 * 1024, converter=_as_bytes, validator=_bytes)
    dispatch_timeout: Duration = attrs.field(default=10.0, converter=_as_seconds, validator=_seconds)
    result_ttl: Duration = attrs.field(default=24 * 3600.0, converter=_as_seconds, validator=_seconds)


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """How a worker behaves. Durations are seconds, sizes bytes, or texts such as "30s" and "10MB".

    Each can be set as `CAMORA_WORKER__NAME` in the environment.

    `lease` is how long a delivery stays a silent worker's; it is renewed while the job runs. `max_deliveries` is how
    often a message may be taken without being settled before it is poison; from `isolate_after` on it runs without
    other suspects beside it, so that the culprit is found. `prefetch` is how many messages are taken ahead of free
    slots. `poll_interval` bounds how long a wake-up can be missed. `blocked_after` is how long the event loop may
    stand still before a warning names the task. `unknown_task_limit` is how long a message may wait for a worker that
    knows its task. A worker process begins anew after `max_jobs` attempts, or when it holds more than `max_memory`
    bytes; None: never.

    Raises `SettingsError` that names the field.
    """

    processes: int = attrs.field(default=1, validator=_whole)
    concurrency: int = attrs.field(default=100, validator=_whole)
    prefetch: int | None = attrs.field(default=None, validator=_or_none(_number("a whole number", int, zero=True)))
    lease: Duration = attrs.field(default=30.0, converter=_as_seconds, validator=_seconds)
    shutdown_timeout: Duration = attrs.field(default=30.0, converter=_as_seconds, validator=_seconds)
    poll_interval: Duration = attrs.field(default=5.0, converter=_as_seconds, validator=_seconds)
    max_deliveries: int = attrs.field(default=5, validator=_whole)
    isolate_after: int = attrs.field(default=2, validator=_whole)
    blocked_after: Duration = attrs.field(default=1.0, converter=_as_seconds, validator=_seconds)
    unknown_task_limit: Duration = attrs.field(default=24 * 3600.0, converter=_as_seconds, validator=_seconds)
    max_jobs: int | None = attrs.field(default=None, validator=_or_none(_whole))
    max_memory: Size | None = attrs.field(default=None, converter=_as_bytes_or_none, validator=_or_none(_bytes))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], **given: Any) -> WorkerSettings:
        """Settings from `CAMORA_WORKER__…` variables, with `given` (where not None) on top. Raises `SettingsError`."""
        prefix = "CAMORA_WORKER__"
        values: dict[str, Any] = {
            name.removeprefix(prefix).lower(): text for name, text in environ.items() if name.startswith(prefix)
        }
        values.update({name: value for name, value in given.items() if value is not None})
        return structure_settings(cls, values, where="worker")
