"""Setting right what was planned by another clock, or by other rules of a time zone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from camora.clock import Clock
from camora.scheduler.firing import Triggers
from camora.schedules import ScheduleParts
from camora.schedules.ticks import next_tick

__all__ = ["ClockWatch", "replan"]

_TOLERANCE = 1.0
"""Seconds; clocks are slewed and read at different moments."""


class ClockWatch:
    """Tells when the wall clock has been set back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = self._offset()

    def _offset(self) -> float:
        return self._clock.now_ms() / 1000 - self._clock.monotonic()

    def was_set_back(self) -> bool:
        """True when it was, since this was asked last."""
        before, self._ahead = self._ahead, self._offset()
        return self._ahead < before - _TOLERANCE


_AHEAD = 3 * 3_600_000
"""Milliseconds that a tick which has fired may lie ahead: by so much, clocks are wrong and ticks are not repeated."""


def _from(now: int, last: int | None) -> int:
    return last if last is not None and now < last <= now + _AHEAD else now


async def replan(
    parts: ScheduleParts, triggers: Triggers, groups: Sequence[str] | None, logger: logging.Logger
) -> None:
    """Give every schedule that is not due the tick it should have: the first after now, and after what fired last.

    A clock that ran ahead for a moment may have planned it for next year, and time zones change their rules. A last
    tick that lies far ahead was a mistake of the clock's, too, and is not waited for.
    """
    store, now = await parts.store(), parts.clock.now_ms()
    for record in await store.list():
        if groups is not None and record.group not in groups:
            continue
        if record.next is not None and record.next <= now:
            continue
        try:
            tick = next_tick(triggers.of(record), _from(now, record.last))
        except Exception as error:  # noqa: BLE001 -- a stranger's trigger; firing it will say what is wrong
            logger.debug("schedule %s cannot be planned: %s", record.key, error)
            continue
        if tick != record.next:
            await store.pause([record.key], paused=None, next_ticks=[tick])
