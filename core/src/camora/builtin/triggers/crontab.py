"""Cron expressions, read by cronsim."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from camora.builtin.triggers.wall import next_moment
from camora.builtin.triggers.zones import zone_named

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = ["Cron"]

_SOME_DAY = datetime(2000, 1, 1)  # noqa: DTZ001 -- a wall clock's
_SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_RANGES = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, or L, LW",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7 (0 and 7 are Sunday), or SUN to SAT, with #1 to #5 or L behind",
}


@attrs.frozen(slots=False)
class Cron:
    """A cron expression on the wall clock of the zone `tz`.

    Five fields: minute, hour, day of month, month, day of week; or six, with seconds in front. `*`, lists, ranges,
    steps and names as in cron; `L` is a month's last day, `MON#2` its second Monday; where both day fields are
    restricted, either suffices; `@hourly` to `@yearly` stand for their usual expressions. What daylight saving time
    does is said in `docs/schedules.md`. Raises `ValueError` that names the field.
    """

    expression: str = attrs.field()
    tz: str = "UTC"

    def __attrs_post_init__(self) -> None:
        self._parsed(_SOME_DAY)
        self._zone  # noqa: B018 -- refused here, not when it is first due

    @cached_property
    def _zone(self) -> Any:
        try:
            return zone_named(self.tz)
        except ValueError as error:
            raise ValueError(f"cron {self.expression!r}: {error}") from None

    def _parsed(self, wall: datetime) -> CronSim:
        from cronsim import CronSim, CronSimError

        if not isinstance(self.expression, str):
            raise ValueError(f'cron {self.expression!r}: expected a text such as "0 9 * * 1-5"')  # noqa: TRY004
        expression = _SHORTHANDS.get(self.expression.strip().lower(), self.expression)
        try:
            return CronSim(expression, wall)
        except (CronSimError, AssertionError) as error:
            raise ValueError(f"cron {self.expression!r}: {_explained(expression, str(error))}") from None

    @cached_property
    def names_hours(self) -> bool:
        """True when it is restricted to some hours of the day."""
        return len(self._parsed(_SOME_DAY).hours) < 24

    def after(self, wall: datetime) -> datetime | None:
        """The first matching time on the wall clock after this one."""
        return next(self._parsed(wall), None)

    def next_after(self, moment: datetime) -> datetime | None:
        """See `Trigger`."""
        return next_moment(self, self._zone, moment)

    def describe(self) -> dict[str, Any]:
        """See `Trigger`."""
        return {"use": "cron", "expression": self.expression, "tz": self.tz}


def _explained(expression: str, error: str) -> str:
    fields = expression.split()
    names = list(_RANGES)
    if len(fields) not in (5, 6):
        return (
            f"has {len(fields)} fields; expected 5 (minute, hour, day of month, month, day of week) or 6 (with seconds "
            'in front), such as "0 9 * * 1-5"'
        )
    named = next((name for name in names if error.endswith(name)), None)
    if named is None:
        return error or "cannot be read"
    at = names.index(named) - (6 - len(fields))
    exists = ", on a day that there is" if named == "day-of-month" else ""
    return f"bad {named} field {fields[at]!r}: expected {_RANGES[named]}{exists}"
