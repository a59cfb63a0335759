"""Triggers: cron expressions, intervals, sets of calendar fields, and single moments."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from camora.builtin.triggers.crontab import Cron
from camora.builtin.triggers.fields import Calendar
from camora.builtin.triggers.interval import Every, EverySettings
from camora.builtin.triggers.moment import Once
from camora.errors import ConfigurationError

__all__ = ["Calendar", "Cron", "Every", "EverySettings", "Once", "calendar", "cron", "every", "once"]


def cron(expression: str, *, tz: str = "UTC") -> Cron:
    """By a cron expression: `cron("0 9 * * 1-5", tz="Europe/Paris")`; see `Cron`. Raises `ConfigurationError`."""
    try:
        return Cron(expression, tz)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def every(
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    anchor: datetime | None = None,
) -> Every:
    """At even intervals: `every(minutes=5)`; see `Every`. Raises `ConfigurationError`."""
    try:
        return EverySettings(
            weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds, anchor=anchor
        ).trigger()
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def calendar(
    *,
    seconds: Iterable[int] | None = None,
    minutes: Iterable[int] | None = None,
    hours: Iterable[int] | None = None,
    days: Iterable[int] | None = None,
    weekdays: Iterable[int | str] | None = None,
    months: Iterable[int] | None = None,
    tz: str = "UTC",
) -> Calendar:
    """By sets of fields: `calendar(minutes={0, 30}, tz="Asia/Tokyo")`; see `Calendar`. Raises `ConfigurationError`."""
    try:
        return Calendar(
            seconds=seconds, minutes=minutes, hours=hours, days=days, weekdays=weekdays, months=months, tz=tz
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def once(at: datetime) -> Once:
    """At one aware moment, and never again. Raises `ConfigurationError`."""
    try:
        return Once(at)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
