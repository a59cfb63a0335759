"""Sets of seconds, minutes, hours, days, weekdays and months."""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Any

import attrs

from camora.builtin.triggers.wall import next_moment
from camora.builtin.triggers.zones import zone_named

__all__ = ["Calendar"]

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONGEST = {month: 29 if month == 2 else calendar.monthrange(2000, month)[1] for month in range(1, 13)}
_DAY = timedelta(days=1)
_PATIENCE = 50
"""Years after which a date is not looked for any longer: the longest wait is 40, for a 29 February on one weekday."""


_ALLOWED = {
    "seconds": range(60),
    "minutes": range(60),
    "hours": range(24),
    "days": [*range(-31, 0), *range(1, 32)],
    "weekdays": range(7),
    "months": range(1, 13),
}
_IN_WORDS = {
    "seconds": "0 to 59",
    "minutes": "0 to 59",
    "hours": "0 to 23",
    "days": "1 to 31, or -1 to -31 counted from the month's end",
    "weekdays": '0 (Monday) to 6, or "mon" to "sun"',
    "months": "1 to 12",
}


def _set(name: str, value: Any) -> frozenset[int] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        value = (value,)
    return frozenset(_number(name, item) for item in value)


def _number(name: str, item: Any) -> int:
    if name == "weekdays" and isinstance(item, str) and item.lower() in _WEEKDAYS:
        return _WEEKDAYS.index(item.lower())
    if not isinstance(item, int) or isinstance(item, bool) or item not in _ALLOWED[name]:
        raise ValueError(f"calendar {name}: {item!r} is not one of {_IN_WORDS[name]}")
    return int(item)


@attrs.frozen(kw_only=True, slots=False)
class Calendar:
    """Whenever the wall clock of the zone `tz` shows one of each set.

    `seconds`, `minutes`, `hours`, `days`, `weekdays` and `months` are sets of numbers. An empty set is any.
    What is left out is any, too, but not what is finer than the finest field given: that is 0, so that `hours={9}`
    comes at 09:00:00 and not in every second of that hour. `days` count from 1, or from the month's end with -1;
    `weekdays` from 0 for Monday, or are "mon" to "sun"; both must fit where both are given. What daylight saving time
    does is said in `docs/schedules.md`. Raises `ValueError` that names the field.
    """

    seconds: Any = None
    minutes: Any = None
    hours: Any = None
    days: Any = None
    weekdays: Any = None
    months: Any = None
    tz: str = "UTC"

    def __attrs_post_init__(self) -> None:
        for name in _ALLOWED:
            object.__setattr__(self, name, _set(name, getattr(self, name)))
        self._zone  # noqa: B018 -- refused here, not when it is first due
        given = [name for name in ("seconds", "minutes", "hours") if getattr(self, name) is not None]
        if not given and self.days is None and self.weekdays is None and self.months is None:
            raise ValueError("calendar: give at least one of seconds, minutes, hours, days, weekdays, months")
        longest = max(_LONGEST[month] for month in self.months or _LONGEST)
        if self.days and min(abs(day) for day in self.days) > longest:
            raise ValueError(f"calendar days={sorted(self.days)}, months={sorted(self.months)}: there is no such day")

    @cached_property
    def _zone(self) -> Any:
        try:
            return zone_named(self.tz)
        except ValueError as error:
            raise ValueError(f"calendar: {error}") from None

    @cached_property
    def _times(self) -> tuple[list[int], list[int], list[int]]:
        """Hours, minutes and seconds that match, each in order."""
        resolved = {}
        finer = True
        for name in ("seconds", "minutes", "hours"):
            values = getattr(self, name)
            finer = finer and values is None
            resolved[name] = [0] if finer else sorted(values or _ALLOWED[name])
        return resolved["hours"], resolved["minutes"], resolved["seconds"]

    @property
    def names_hours(self) -> bool:
        """True when it is restricted to some hours of the day."""
        return len(self._times[0]) < 24

    def after(self, wall: datetime) -> datetime | None:
        """The first matching time on the wall clock after this one."""
        if self._matches(wall.date()):
            later = self._time_after(wall.time())
            if later is not None:
                return datetime.combine(wall.date(), later)
        day = self._day_after(wall.date())
        hours, minutes, seconds = self._times
        return None if day is None else datetime.combine(day, time(hours[0], minutes[0], seconds[0]))

    def _matches(self, day: date) -> bool:
        if self.months and day.month not in self.months:
            return False
        if self.weekdays and day.weekday() not in self.weekdays:
            return False
        if not self.days or day.day in self.days:
            return True
        return day.day - calendar.monthrange(day.year, day.month)[1] - 1 in self.days

    def _day_after(self, day: date) -> date | None:
        last = day.year + _PATIENCE
        while day.year <= last:
            day += _DAY
            if self.months and day.month not in self.months:
                # To the end of the month: the next step leaves it.
                day = day.replace(day=calendar.monthrange(day.year, day.month)[1])
            elif self._matches(day):
                return day
        return None

    def _time_after(self, moment: time) -> time | None:
        hours, minutes, seconds = self._times
        for hour in hours:
            if hour < moment.hour:
                continue
            for minute in minutes:
                if (hour, minute) < (moment.hour, moment.minute):
                    continue
                for second in seconds:
                    if (hour, minute, second) > (moment.hour, moment.minute, moment.second):
                        return time(hour, minute, second)
        return None

    def next_after(self, moment: datetime) -> datetime | None:
        """See `Trigger`."""
        return next_moment(self, self._zone, moment)

    def describe(self) -> dict[str, Any]:
        """See `Trigger`."""
        names = ("seconds", "minutes", "hours", "days", "weekdays", "months")
        sets = {name: sorted(getattr(self, name)) for name in names if getattr(self, name) is not None}
        return {"use": "calendar", **sets, "tz": self.tz}
