"""Retry policies: pure functions of attempt and exception."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import backoff
import pytest
from camora.errors import ConfigurationError
from camora.links.retries import decide
from camora.retry import RetryPolicy, classify, from_wire
from camora.signals import Retry


def context(attempt: int) -> Any:
    return SimpleNamespace(attempt=attempt)


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (RetryPolicy(max_tries=4, delay=2, mode="fixed", jitter=False), [2, 2, 2, None]),
        (RetryPolicy(max_tries=4, delay=2, mode="linear", jitter=False), [2, 4, 6, None]),
        (RetryPolicy(max_tries=5, delay=2, mode="exponential", jitter=False), [2, 4, 8, 16, None]),
        (RetryPolicy(max_tries=4, delay=2, delay_max=5, mode="exponential", jitter=False), [2, 4, 5, None]),
        (RetryPolicy.never(), [None]),
    ],
)
def test_waits(policy: RetryPolicy, waits: list[float | None]) -> None:
    assert [policy.wait(attempt) for attempt in range(1, len(waits) + 1)] == waits
    assert [from_wire(policy.to_wire()).wait(attempt) for attempt in range(1, len(waits) + 1)] == waits


def test_jitter_is_full_and_never_more_than_the_wait() -> None:
    policy = RetryPolicy(max_tries=9, delay=10, mode="fixed")
    waits = [policy.wait(1) or 0.0 for _ in range(500)]
    assert max(waits) <= 10
    assert min(waits) < 1
    assert max(waits) > 9


def test_a_late_attempt_neither_overflows_nor_takes_long() -> None:
    policy = RetryPolicy(max_tries=10**9, delay=1, delay_max=60, jitter=False)
    assert policy.wait(10**8) == 60


def test_only_what_is_named_is_retried() -> None:
    policy = RetryPolicy(on=(OSError,), jitter=False)
    assert policy(context(1), ConnectionError()) == 1.0
    assert policy(context(1), ValueError()) is None
    travelled = from_wire(policy.to_wire())
    assert travelled(context(1), ConnectionError()) == 1.0
    assert travelled(context(1), ValueError()) is None


@pytest.mark.parametrize(
    ("policy", "error", "delay"),
    [
        (None, ValueError(), None),
        (None, Retry(), "some"),
        (None, Retry(delay=7), 7.0),
        (RetryPolicy.never(), Retry(delay=7), None),
        (RetryPolicy(on=()), Retry(delay=7), 7.0),
        (RetryPolicy(on=()), ValueError(), None),
        (RetryPolicy.never(), Retry(policy=RetryPolicy(max_tries=2, delay=3, jitter=False)), 3.0),
        (lambda job, exception: 11.0, ValueError(), 11.0),
        (lambda job, exception: None, Retry(delay=1), None),
        (lambda job, exception: 11.0, Retry(delay=1), 1.0),
    ],
)
def test_precedence(policy: Any, error: Exception, delay: Any) -> None:
    decided = decide(policy, context(1), error)
    if delay == "some":
        assert decided is not None
    else:
        assert decided == delay


def test_kinds_of_policies() -> None:
    assert classify(RetryPolicy()) == "durable"
    assert classify(backoff.on_exception(backoff.expo, Exception, max_tries=5)) == "decorator"
    assert classify(lambda job, exception: None) == "callable"


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(max_tries=0),
        lambda: RetryPolicy(delay=-1),
        lambda: RetryPolicy(mode="quadratic"),  # type: ignore[arg-type]
    ],
)
def test_impossible_policies_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="RetryPolicy"):
        make()


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no policy"):
        classify(5)

    async def policy(job: Any, exception: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="without awaiting"):
        classify(policy)
