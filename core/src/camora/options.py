"""What can be said about a task, and about one dispatch of it."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, TypedDict, get_args

import attrs

from camora.clock import to_epoch_ms
from camora.errors import ConfigurationError, DispatchError
from camora.plugin_options import PluginOptions, checked_options
from camora.queue import Queue
from camora.retry import RetryPolicy, classify
from camora.units import Rate, duration
from camora.validators import check_name, named, rate_or_none, whole

__all__ = [
    "AckMode",
    "DispatchOptions",
    "DispatchOptionsDict",
    "Execution",
    "FailureMode",
    "PatternOptions",
    "TaskOptions",
    "TaskOptionsDict",
    "check_name",
    "names_of_options",
    "rate_or_none",
    "split_task_options",
    "whole",
]

Execution = Literal["async", "sync", "thread", "process"]
AckMode = Literal["after", "before", "always"]
FailureMode = Literal["dead_letter", "requeue", "drop"]


class TaskOptionsDict(TypedDict, total=False):
    """The keyword arguments of `@app.task(...)`, for type checkers."""

    name: str | None
    queue: str | Queue
    retry_policy: Any
    timeout: float | timedelta | str | None
    delay: float | timedelta | str
    expires: float | timedelta | str | None
    priority: int
    pool: str | None
    execution: Execution | None
    ack: AckMode
    on_failure: FailureMode
    keep_result: bool
    max_concurrency: int | None
    rate_limit: str | Rate | None
    limit_by: str | Callable[..., str] | None
    key: str | Callable[..., str] | None
    key_ttl: float | timedelta | str


class DispatchOptionsDict(TypedDict, total=False):
    """The keyword arguments of `task.options(...)`, for type checkers."""

    queue: str | Queue
    delay: float | timedelta | str
    eta: datetime | None
    expires: float | timedelta | datetime | str | None
    priority: int
    retry_policy: RetryPolicy | None
    timeout: float | timedelta | str | None
    key: str | None
    key_ttl: float | timedelta | str
    headers: Mapping[str, str]
    job_id: str | None
    connection: Any


def _choice(what: Any) -> Callable[[Any, Any, Any], None]:
    allowed = get_args(what)

    def check(_: Any, attribute: Any, value: Any) -> None:
        if value is not None and value not in allowed:
            raise ConfigurationError(f"{attribute.name}={value!r}: one of {', '.join(map(repr, allowed))}")

    return check


def _duration(value: Any) -> Any:
    """Seconds; what is none stays as it is, for the validator to name."""
    if isinstance(value, (timedelta, str)):
        try:
            return duration(value)
        except ValueError:
            return value
    return value


def _seconds(*, zero: bool) -> Callable[[Any, Any, Any], None]:
    def check(_: Any, attribute: Any, value: Any) -> None:
        if value is None or isinstance(value, datetime):
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigurationError(
                f'{attribute.name}={value!r}: seconds (a number), a timedelta, or a text such as "30s"'
            )
        if not (value >= 0 if zero else value > 0) or value > 3.2e11:
            raise ConfigurationError(
                f"{attribute.name}={value!r}: must be {'0 or more' if zero else 'more than 0'} seconds"
            )

    return check


def _policy(_: Any, attribute: Any, value: Any) -> None:
    if value is not None:
        classify(value)


def _flag(_: Any, attribute: Any, value: Any) -> None:
    if value is not None and not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name}={value!r}: True or False")


PRIORITY_MAX = 9
_OWNED = "owned"
"""Where options of plugins are kept: nothing that could be given under this name."""
_NONE: PluginOptions = MappingProxyType({})


def names_of_options(cls: type[Any]) -> tuple[str, ...]:
    """What can be given for a class of options."""
    return tuple(field.name for field in attrs.fields(cls) if field.name != _OWNED)


def refuse_unknown(known: Iterable[str], given: Iterable[str], where: str) -> None:
    """Raise `ConfigurationError` for an option that is not known, with the nearest one that is."""
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}; did you forget a plugin?"
            raise ConfigurationError(f"{where}: unknown option {name!r}: {hint}")


@attrs.frozen(kw_only=True)
class TaskOptions:
    """Options of a task. Durations are seconds.

    `execution` is where the function runs (default: `async` for coroutine functions, `thread` for others); `pool`
    names a pool instead. `ack="after"` settles when the job has ended (at least once); `"before"` when it starts (at
    most once: a crash loses it, and it is never retried); `"always"` after the run, whatever came of it (a failure is
    recorded, not dead-lettered). `on_failure` is what becomes of a message whose tries are used up.

    `max_concurrency` is how many of its jobs run at once, and `rate_limit` (such as "100/m") how many attempts may
    start in a time, over all workers; with `limit_by` both hold for each value of it apart. `key` is an idempotency
    key. Both are functions of the task's arguments, or format strings over them such as `"order-{order_id}"`.
    """

    name: str | None = attrs.field(default=None, validator=named("task"))
    queue: str = attrs.field(default="default", validator=named("queue"))
    retry_policy: Any = attrs.field(default=None, validator=_policy)
    timeout: float | None = attrs.field(default=None, converter=_duration, validator=_seconds(zero=False))
    delay: float = attrs.field(default=0.0, converter=_duration, validator=_seconds(zero=True))
    expires: float | None = attrs.field(default=None, converter=_duration, validator=_seconds(zero=False))
    priority: int = attrs.field(default=0, validator=whole(0, PRIORITY_MAX))
    pool: str | None = attrs.field(default=None, validator=named("pool"))
    execution: Execution | None = attrs.field(default=None, validator=_choice(Execution))
    ack: AckMode = attrs.field(default="after", validator=_choice(AckMode))
    on_failure: FailureMode = attrs.field(default="dead_letter", validator=_choice(FailureMode))
    keep_result: bool = attrs.field(default=True, validator=_flag)
    max_concurrency: int | None = attrs.field(default=None, validator=whole(1, 1_000_000))
    rate_limit: Rate | None = attrs.field(default=None, converter=rate_or_none)
    limit_by: str | Callable[..., str] | None = None
    key: str | Callable[..., str] | None = None
    key_ttl: float = attrs.field(default=0.0, converter=_duration, validator=_seconds(zero=True))

    @classmethod
    def build(cls, given: Mapping[str, Any], where: str) -> TaskOptions:
        """Options from keyword arguments; `where` names the task in errors. Raises `ConfigurationError`."""
        refuse_unknown(names_of_options(cls), given, where)
        try:
            return cls(**given)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None


def split_task_options(
    given: Mapping[str, Any], offered: PluginOptions, where: str
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A task's options: the core's, not checked yet, and those of plugins (None when there are none).

    Raises `ConfigurationError` for what nobody knows, and for what a plugin refuses.
    """
    refuse_unknown((*names_of_options(TaskOptions), *offered), given, where)
    core = {name: value for name, value in given.items() if name not in offered}
    if len(core) == len(given):
        return core, None
    owned = {name: value for name, value in given.items() if name in offered}
    return core, checked_options(offered, owned, where) or None


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not all(isinstance(part, str) for part in (name, text)):
            raise ConfigurationError(f"headers: {name!r}: {text!r}: names and values are texts")
    return dict(value)


_queue_name = named("queue")


def _queue(options: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Queue):  # which has been checked
        _queue_name(options, attribute, value)


@attrs.frozen(kw_only=True)
class DispatchOptions:
    """Options of one dispatch; None leaves what the task says. Durations are seconds.

    `eta` is an aware datetime; with both, `delay` is added to it. `expires` is seconds from now or an aware datetime.
    `connection` is a connection or session of the caller's, inside whose transaction the job is enqueued: see
    `Broker.publish_within`.
    """

    queue: str | Queue | None = attrs.field(default=None, validator=_queue)
    delay: float | None = attrs.field(default=None, converter=_duration, validator=_seconds(zero=True))
    eta: datetime | None = None
    expires: float | datetime | None = attrs.field(default=None, converter=_duration, validator=_seconds(zero=False))
    priority: int | None = attrs.field(default=None, validator=whole(0, PRIORITY_MAX))
    retry_policy: RetryPolicy | None = None
    timeout: float | None = attrs.field(default=None, converter=_duration, validator=_seconds(zero=False))
    key: str | None = None
    key_ttl: float | None = attrs.field(default=None, converter=_duration, validator=_seconds(zero=True))
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_headers)
    job_id: str | None = None
    connection: Any = None
    owned: Mapping[str, Any] | None = None
    """The options of plugins, checked; given by their own names."""

    def merge(self, given: Mapping[str, Any], where: str, offered: PluginOptions = _NONE) -> DispatchOptions:
        """These options with others on top; `offered` are those of plugins.

        Raises `ConfigurationError` naming the task and the option.
        """
        if not given.keys() <= _DISPATCH_NAMES:
            given = self._with_owned(given, where, offered)
        if (policy := given.get("retry_policy")) is not None and not isinstance(policy, RetryPolicy):
            raise ConfigurationError(
                f"{where}: retry_policy={policy!r} cannot travel with a job; only a RetryPolicy can. "
                "Give callables and decorators to the task or the app."
            )
        try:
            return attrs.evolve(self, **given)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None

    def given(self) -> list[str]:
        """The names of the options that say something; those of plugins by their own names."""
        core = attrs.asdict(self, recurse=False, filter=_is_set)
        return [*(name for name in core if name != _OWNED), *(self.owned or ())]

    def _with_owned(self, given: Mapping[str, Any], where: str, offered: PluginOptions) -> dict[str, Any]:
        """What is given, with the options of plugins gathered in one."""
        for name in given:
            if name in offered and not offered[name].dispatch:
                raise ConfigurationError(
                    f"{where}: {name!r} is an option of tasks, not of a dispatch: @app.task({name}=…)"
                )
        refuse_unknown((*names_of_options(DispatchOptions), *offered), given, where)
        core = {name: value for name, value in given.items() if name not in offered}
        owned = checked_options(offered, {name: given[name] for name in given if name in offered}, where)
        return {**core, _OWNED: {**(self.owned or {}), **owned} or None}

    def over(self, others: DispatchOptions) -> DispatchOptions:
        """These options, and where they leave something open, the others'."""
        mine = attrs.asdict(self, recurse=False, filter=_is_set)
        if self.owned and others.owned:
            mine[_OWNED] = {**others.owned, **self.owned}
        return attrs.evolve(others, **mine)

    def due_ms(self, now: int, default_delay: float) -> int:
        """When the job is due, in milliseconds since the epoch; 0 for now. Raises `DispatchError`."""
        delay = default_delay if self.delay is None else self.delay
        if self.eta is None:
            return now + round(delay * 1000) if delay else 0
        return _moment("eta", self.eta) + round(delay * 1000 if self.delay else 0)

    def expires_ms(self, now: int, default: float | None) -> int | None:
        """When the job expires, in milliseconds since the epoch. Raises `DispatchError`."""
        if isinstance(self.expires, datetime):
            return _moment("expires", self.expires)
        span = default if self.expires is None else self.expires
        return None if span is None else now + round(span * 1000)


_DISPATCH_NAMES = frozenset(names_of_options(DispatchOptions))


def _is_set(attribute: Any, value: Any) -> bool:
    return value is not None and not (attribute.name == "headers" and not value)


class PatternOptions:
    """Options of tasks from settings, by task name or pattern.

    An exact name's options go over what the code says: they are the deployment's word. A pattern's (with `*`, as in
    `shop.tasks:*`) are defaults, for what the code leaves open; of several patterns the longest goes first.
    """

    def __init__(self, by_pattern: Mapping[str, Mapping[str, Any]]) -> None:
        self._exact = {name: dict(options) for name, options in by_pattern.items() if "*" not in name}
        patterns = [(name, dict(options)) for name, options in by_pattern.items() if "*" in name]
        self._patterns = sorted(patterns, key=lambda item: (len(item[0]), item[0]))

    def over(self, name: str, declared: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a task of this name that was declared with these."""
        merged: dict[str, Any] = {}
        for pattern, options in self._patterns:
            if fnmatch.fnmatchcase(name, pattern):
                merged.update(options)
        return {**merged, **declared, **self._exact.get(name, {})}


def _moment(name: str, value: datetime) -> int:
    try:
        return to_epoch_ms(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise DispatchError(f"{name}: {error}") from None
