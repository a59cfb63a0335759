"""Even intervals."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from camora.builtin.triggers.moment import aware_moment

__all__ = ["Every", "EverySettings"]

_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)


def _anchor(value: Any) -> datetime:
    return _EPOCH if value is None else aware_moment("anchor", value)


@attrs.frozen
class Every:
    """Every so many seconds, counted from an anchor: elapsed time, which no change of a wall clock touches.

    Ticks are the whole multiples of the interval from `anchor` on, in both directions: they depend on nothing else, so
    nothing drifts, and a restart changes nothing. Without an anchor they are counted from 1970-01-01 UTC: `minutes=5`
    comes at :00, :05, :10 … and `days=1` at midnight, UTC.
    """

    seconds: float = attrs.field()
    anchor: datetime = attrs.field(default=None, converter=_anchor)

    @seconds.validator
    def _is_long_enough(self, _: Any, value: Any) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or round(value * 1000) < 1:
            raise ValueError(f"every {value!r} seconds: give an interval of at least a millisecond, such as minutes=5")

    def next_after(self, moment: datetime) -> datetime | None:
        """See `Trigger`."""
        # In whole numbers: sums of fractions would drift.
        interval = round(self.seconds * 1000) * _MILLISECOND
        try:
            return self.anchor + ((moment.astimezone(UTC) - self.anchor) // interval + 1) * interval
        except OverflowError:  # beyond the year 9999
            return None

    def describe(self) -> dict[str, Any]:
        """See `Trigger`."""
        anchored = {} if self.anchor == _EPOCH else {"anchor": self.anchor.isoformat()}
        return {"use": "every", "seconds": self.seconds, **anchored}


@attrs.frozen(kw_only=True)
class EverySettings:
    """An interval as people write it; the parts are added up.

    `weeks`, `days`, `hours`, `minutes` and `seconds` are numbers; `anchor` is the aware moment they are counted from.
    """

    weeks: float = 0
    days: float = 0
    hours: float = 0
    minutes: float = 0
    seconds: float = 0
    anchor: Any = None

    def __attrs_post_init__(self) -> None:
        self.trigger()

    def trigger(self) -> Every:
        """The trigger. Raises `ValueError`."""
        parts = {name: getattr(self, name) for name in ("weeks", "days", "hours", "minutes", "seconds")}
        for name, value in parts.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise ValueError(f"every {name}={value!r}: expected a number that is not negative")
        try:
            total = timedelta(**parts).total_seconds()
        except OverflowError:
            raise ValueError("every: the interval is longer than time can be told") from None
        return Every(int(total) if total.is_integer() else total, self.anchor)
