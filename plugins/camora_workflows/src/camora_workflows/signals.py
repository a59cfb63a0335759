"""`wait_for_signal`: a job that waits for somebody holds no slot, and loses no signal."""

from __future__ import annotations

import builtins
import math
from datetime import timedelta
from typing import Any, TypeVar, overload

from camora.clock import seconds
from camora.errors import PayloadError
from camora.interfaces.journal import signal_entry, timeout_entry, wait_entry

from camora_workflows.journaling import Running, running

__all__ = ["wait_for_signal"]

T = TypeVar("T")

_FIRST_LOOK = 1.0
"""Seconds after which a job that was suspended looks for a signal by itself: one may have come while it was."""
_RARELY, _OFTEN = 600.0, 60.0
"""The longest pause between two looks, in seconds: where a signal can wake the job, and where it cannot."""


@overload
async def wait_for_signal(name: str, /, *, timeout: float | timedelta | None = None, type: builtins.type[T]) -> T: ...
@overload
async def wait_for_signal(name: str, /, *, timeout: float | timedelta | None = None, type: Any = ...) -> Any: ...
async def wait_for_signal(
    name: str,
    /,
    *,
    timeout: float | timedelta | None = None,
    type: Any = Any,  # noqa: A002 -- it is what is asked for
) -> Any:
    """The payload of the next `app.signal(job_id, name, payload)`, as `type`; waits without a worker.

    Inside an async task. Signals of one name are handed out in the order of their arrival, each once; one that came
    before the job waits for it, or before it was even dispatched, is there already. If there is none, the job ends
    here, and runs again from its top when one comes: steps are not done again. Where the broker cannot wake a job, it
    looks by itself, at first after a second, later once in a minute.

    Raises `TimeoutError` when none has come within `timeout` (seconds or timedelta, counted from the first run that
    waits here); `PayloadError` when the payload is no `type`; `ValueError` for a timeout that is none; and as `step`.
    """
    run = running("wait_for_signal(…)")
    run.check_own_task("wait_for_signal(…)")
    run.named("signal", name)
    limit = _limit(name, timeout)
    turn = run.count(f"wait:{name}")
    known = await run.entries()
    if timeout_entry(name, turn) in known:
        raise _too_late(run, name)
    post = signal_entry(name, turn - sum(timeout_entry(name, earlier) in known for earlier in range(turn)))
    if post not in known:
        begun = await _begun(run, name, turn, limit)
        known = await run.look_again()
        if post not in known:
            await _suspend(run, name, turn, begun)
    return _payload(run, name, known[post], type)


async def _begun(run: Running, name: str, turn: int, limit: float | None) -> tuple[int, int | None]:
    """When the wait began, and when it ends in vain; both in milliseconds since the epoch.

    Entered before the last look for the signal: so either that look finds it, or who sends it sees that it is awaited.
    """
    entry = wait_entry(name, turn)
    known = (await run.entries()).get(entry)
    if known is None:
        now = run.now()
        ends = "" if limit is None else str(now + round(limit * 1000))
        known = await run.enter(entry, f"{now} {ends}".encode(), lasting=limit or 0.0)
    since, _, ends = known.decode().partition(" ")
    return int(since), int(ends) if ends else None


async def _suspend(run: Running, name: str, turn: int, begun: tuple[int, int | None]) -> None:
    """Give the slot back until the next look, or raise `TimeoutError`."""
    now, (since, ends) = run.now(), begun
    longest = _RARELY if await run.can_be_woken() else _OFTEN
    pause = min(longest, max(_FIRST_LOOK, (now - since) / 2000))
    if ends is not None:
        left = (ends - now) / 1000
        if left <= 0:
            await run.enter(timeout_entry(name, turn), b"1")
            raise _too_late(run, name)
        pause = min(pause, left)
    await run.suspend(pause)


def _limit(name: str, timeout: float | timedelta | None) -> float | None:
    try:
        limit = None if timeout is None else seconds(timeout)
    except (TypeError, ValueError):
        raise ValueError(f"wait_for_signal({name!r}, timeout={timeout!r}): give seconds or a timedelta") from None
    if limit is not None and not 0 <= limit < math.inf:
        raise ValueError(f"wait_for_signal({name!r}, timeout={timeout!r}): seconds from 0, and an end; None waits on")
    return limit


def _too_late(run: Running, name: str) -> TimeoutError:
    return TimeoutError(f"no signal {name!r} has come in time")


def _payload(run: Running, name: str, encoded: bytes, kind: Any) -> Any:
    try:
        return run.host.decode(encoded, kind)
    except PayloadError as error:
        shown = getattr(kind, "__qualname__", str(kind))
        raise PayloadError(
            f"what came with the signal {name!r} is no {shown}: {error}", task=run.label, field=error.field
        ) from None
