"""Settings as attrs classes: structured strictly, with every mistake reported at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import attrs

from camora.errors import SettingsError

__all__ = ["AppSettings", "WorkerSettings", "mask_url", "structure_settings"]

T = TypeVar("T")

_PASSWORD = re.compile(r"^([A-Za-z0-9+.-]+://[^/@:]*:)[^/]*@")
_SECRET_QUERY = re.compile(r"(?i)([?&][^=&]*(?:password|passwd|secret|token|key|sig)[^=&]*=)[^&]*")


def mask_url(url: str) -> str:
    """The URL with its password, and secrets in its query, replaced by `***`."""
    return _SECRET_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1***@", url))


def structure_settings(cls: type[T], given: Mapping[str, Any], *, where: str) -> T:
    """An attrs settings class from plain data. Raises `SettingsError` holding every problem, one text each."""
    import cattrs

    fields = {field.name: field for field in attrs.fields(cls)}  # type: ignore[arg-type]
    problems = []
    for name in given:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(fields)) or 'none'}"
            problems.append(f"{where}: unknown setting {name!r}: {hint}")
    converter = cattrs.Converter()
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in given:
            if field.default is attrs.NOTHING:
                problems.append(f"{where}: setting {name!r} is missing")
            continue
        try:
            values[name] = converter.structure(given[name], hints.get(name, Any))
        except Exception as error:  # noqa: BLE001 -- whatever a converter raises is the setting's fault
            kind = getattr(hints.get(name), "__name__", str(hints.get(name)))
            problems.append(f"{where}: {name} = {given[name]!r}: expected {kind} ({error})")
    if not problems:
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:
            problems.append(f"{where}: {error}")
    raise SettingsError("\n".join(problems), problems=problems)


def _positive(_: Any, attribute: Any, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} = {value!r}: must be more than 0")


@attrs.frozen(kw_only=True)
class AppSettings:
    """Limits of an app. Sizes are bytes, durations seconds.

    `max_message_size` holds for what is dispatched and for what is decoded. `dispatch_timeout` is how long a dispatch
    tries to reach the broker. `result_ttl` is how long a finished job is remembered.
    """

    max_message_size: int = attrs.field(default=1024 * 1024, validator=_positive)
    max_result_size: int = attrs.field(default=16 * 1024 * 1024, validator=_positive)
    dispatch_timeout: float = attrs.field(default=10.0, validator=_positive)
    result_ttl: float = attrs.field(default=24 * 3600.0, validator=_positive)


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """How a worker behaves. Durations are seconds; each can be set as `CAMORA_WORKER__NAME` in the environment.

    `lease` is how long a delivery stays a silent worker's; it is renewed while the job runs. `max_deliveries` is how
    often a message may be taken without being settled before it is poison; from `isolate_after` on it runs without
    other suspects beside it, so that the culprit is found. `prefetch` is how many messages are taken ahead of free
    slots. `poll_interval` bounds how long a wake-up can be missed. `blocked_after` is how long the event loop may
    stand still before a warning names the task. `unknown_task_limit` is how long a message may wait for a worker that
    knows its task. A worker process begins anew after `max_jobs` attempts, or when it holds more than `max_memory`
    bytes; None: never.
    """

    processes: int = attrs.field(default=1, validator=_positive)
    concurrency: int = attrs.field(default=100, validator=_positive)
    prefetch: int | None = None
    lease: float = attrs.field(default=30.0, validator=_positive)
    shutdown_timeout: float = attrs.field(default=30.0, validator=_positive)
    poll_interval: float = attrs.field(default=5.0, validator=_positive)
    max_deliveries: int = attrs.field(default=5, validator=_positive)
    isolate_after: int = attrs.field(default=2, validator=_positive)
    blocked_after: float = attrs.field(default=1.0, validator=_positive)
    unknown_task_limit: float = attrs.field(default=24 * 3600.0, validator=_positive)
    max_jobs: int | None = attrs.field(default=None, validator=attrs.validators.optional(_positive))
    max_memory: int | None = attrs.field(default=None, validator=attrs.validators.optional(_positive))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], **given: Any) -> WorkerSettings:
        """Settings from `CAMORA_WORKER__…` variables, with `given` (where not None) on top. Raises `SettingsError`."""
        prefix = "CAMORA_WORKER__"
        values: dict[str, Any] = {
            name.removeprefix(prefix).lower(): text for name, text in environ.items() if name.startswith(prefix)
        }
        values.update({name: value for name, value in given.items() if value is not None})
        return structure_settings(cls, values, where="worker")
