"""The durable retry policy.

Delays come from the `backoff` library's wait generators and its full jitter ("Exponential Backoff And Jitter", AWS
Architecture Blog, 2015).
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable
from typing import Any, Literal, get_args

import attrs

from camora.errors import ConfigurationError
from camora.message import RetrySettings

__all__ = ["PolicyKind", "RetryDecorator", "RetryPolicy", "classify", "from_wire"]

Mode = Literal["fixed", "linear", "exponential"]
RetryDecorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_LONGEST = 366 * 24 * 3600.0
# Beyond this many doublings every delay is at its maximum; the generator need not be run further.
_DOUBLINGS = 64


def _positive(_: Any, attribute: Any, value: float | None) -> None:
    if value is not None and value < 0:
        raise ValueError(f"RetryPolicy({attribute.name}={value!r}): must not be negative")


def _tries(_: Any, attribute: Any, value: int) -> None:
    if value < 1:
        raise ValueError(f"RetryPolicy(max_tries={value!r}): the first run counts, so at least 1")


def _mode(_: Any, attribute: Any, value: str) -> None:
    if value not in get_args(Mode):
        raise ValueError(f"RetryPolicy(mode={value!r}): one of {', '.join(get_args(Mode))}")


def _types(value: Any) -> tuple[type[BaseException] | str, ...]:
    return tuple(value) if isinstance(value, (tuple, list, set, frozenset)) else (value,)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, and when, a failed job is tried again; it travels with the job and survives crashes.

    `max_tries` counts the first run. `delay` and `delay_max` are seconds; by `mode`, the nth retry waits
    `delay` (fixed), `n * delay` (linear) or `2 ** (n - 1) * delay` (exponential), at most `delay_max`, and with
    `jitter` a random part of that. `on` are the exception types (or their qualified names) that are retried; with
    `on=()` only `Retry` is.
    """

    max_tries: int = attrs.field(default=5, validator=_tries)
    delay: float = attrs.field(default=1.0, validator=_positive)
    delay_max: float | None = attrs.field(default=3600.0, validator=_positive)
    mode: Mode = attrs.field(default="exponential", validator=_mode)
    jitter: bool = True
    on: tuple[type[BaseException] | str, ...] = attrs.field(default=(Exception,), converter=_types)

    @classmethod
    def never(cls) -> RetryPolicy:
        """A policy that gives up at the first failure."""
        return cls(max_tries=1, delay=0)

    def covers(self, exception: BaseException) -> bool:
        """True when this exception is of a type in `on`; one that came as text counts as what it was."""
        names = getattr(exception, "bases", ()) or [_qualified(base) for base in type(exception).__mro__]
        for kind in self.on:
            if (not isinstance(kind, str) and isinstance(exception, kind)) or _name(kind) in names:
                return True
        return False

    def wait(self, attempt: int) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None when it was the last."""
        if attempt >= self.max_tries:
            return None
        import backoff

        if self.mode == "linear":
            value = min(self.delay * attempt, self.delay_max or _LONGEST)
        else:
            waits = (
                backoff.constant(interval=self.delay)  # type: ignore[arg-type]  # its stub forgets float
                if self.mode == "fixed"
                else backoff.expo(base=2, factor=self.delay, max_value=self.delay_max or _LONGEST)
            )
            next(waits)  # backoff's generators begin with a None
            value = next(itertools.islice(waits, min(attempt, _DOUBLINGS) - 1, None))
        value = float(min(value, self.delay_max or _LONGEST))
        return backoff.full_jitter(value) if self.jitter else value

    def __call__(self, job: Any, exception: BaseException, /) -> float | None:
        """Decide over a failed attempt: see `RetryPolicyLike`."""
        return self.wait(job.attempt) if self.covers(exception) else None

    def to_wire(self) -> RetrySettings:
        """The policy as it travels; exception types travel as names and are compared by name."""
        return RetrySettings(
            max_tries=self.max_tries,
            delay=self.delay,
            delay_max=self.delay_max,
            mode=self.mode,
            jitter=self.jitter,
            on=tuple(_name(kind) for kind in self.on),
        )


def from_wire(settings: RetrySettings) -> RetryPolicy:
    """The policy that `to_wire` sent; raises `ValueError` for impossible values."""
    return RetryPolicy(
        max_tries=settings.max_tries,
        delay=settings.delay,
        delay_max=settings.delay_max,
        mode=settings.mode,  # type: ignore[arg-type]  # checked by its validator
        jitter=settings.jitter,
        on=settings.on,
    )


def _qualified(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _name(kind: type[BaseException] | str) -> str:
    return kind if isinstance(kind, str) else _qualified(kind)


PolicyKind = Literal["durable", "callable", "decorator"]


def classify(policy: Any) -> PolicyKind:
    """What sort of policy this is: a `RetryPolicy`, a callable `(job, exception)`, or a decorator `(function)`.

    Raises `ConfigurationError` for anything else.
    """
    if isinstance(policy, RetryPolicy):
        return "durable"
    if not callable(policy):
        raise ConfigurationError(
            f"retry_policy={policy!r} is no policy: give a RetryPolicy, a callable (job, exception) -> seconds | None, "
            "or a decorator for coroutine functions such as backoff.on_exception(...)"
        )
    if asyncio.iscoroutinefunction(policy):
        raise ConfigurationError(
            f"retry_policy={policy!r}: a policy decides without awaiting; make it a plain function"
        )
    parameters = [
        parameter
        for parameter in inspect.signature(policy).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return "decorator" if len(parameters) == 1 else "callable"
