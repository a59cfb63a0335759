"""What holds for every trigger, tried on many; and each against a plainer way to the same moments."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from camora import calendar, cron, every, once, plugins
from camora.errors import ConfigurationError
from camora.interfaces.schedule import Trigger
from camora.schedules import make_trigger, trigger_text
from camora.schedules.ticks import moment_of, next_tick
from hypothesis import given, settings
from hypothesis import strategies as st

ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC))  # noqa: DTZ001
CATALOG = plugins.load()
MINUTE = timedelta(minutes=1)


def some(most: int, least: int = 0) -> st.SearchStrategy[set[int]]:
    return st.sets(st.integers(least, most), min_size=1, max_size=4)


FIELDS = st.fixed_dictionaries(
    {"minutes": some(59)},
    optional={"hours": some(23), "days": some(28, 1), "months": some(12, 1), "weekdays": some(6)},
)
CALENDARS = st.builds(lambda fields, tz: calendar(**fields, tz=tz), FIELDS, st.sampled_from(ZONES))
INTERVALS = st.one_of(st.integers(1, 10**6), st.floats(0.001, 10**6)).map(lambda seconds: every(seconds=seconds))
TRIGGERS = st.one_of(CALENDARS, INTERVALS, MOMENTS.map(once))


def crontab(fields: dict[str, set[int]], tz: str) -> Trigger:
    """The same as a cron expression, in which 0 is Sunday."""
    days = {(day + 1) % 7 for day in fields["weekdays"]} if "weekdays" in fields else set()
    parts = [fields["minutes"], *(fields.get(name, set()) for name in ("hours", "days", "months")), days]
    return cron(" ".join(",".join(map(str, sorted(part))) or "*" for part in parts), tz=tz)


@given(TRIGGERS, MOMENTS)
@settings(deadline=None)
def test_the_next_moment_is_later_and_in_utc_and_none_is_skipped(trigger: Trigger, moment: datetime) -> None:
    following = trigger.next_after(moment)
    if following is None:
        return
    assert following > moment
    assert following.tzinfo is UTC
    # From wherever one asks in between, it is the same one.
    last = following - timedelta(microseconds=1)
    for part in (0.25, 0.5, 0.999):
        assert trigger.next_after(min(moment + (following - moment) * part, last)) == following
    assert trigger.next_after(last) == following


@given(TRIGGERS, MOMENTS)
@settings(deadline=None)
def test_a_trigger_made_again_from_its_description_is_equal(trigger: Trigger, moment: datetime) -> None:
    again = make_trigger(CATALOG, trigger.describe())
    assert again == trigger
    assert again.next_after(moment) == trigger.next_after(moment)
    assert trigger_text(trigger.describe()) == trigger_text(again.describe())


@given(FIELDS.filter(lambda fields: not ("days" in fields and "weekdays" in fields)), st.sampled_from(ZONES), MOMENTS)
@settings(deadline=None)
def test_cron_and_calendar_come_to_the_same_moments(fields: dict[str, Any], tz: str, moment: datetime) -> None:
    # Where both kinds of days are given, cron takes either and a calendar both.
    one, other = calendar(**fields, tz=tz), crontab(fields, tz)
    for _ in range(5):
        found = one.next_after(moment)
        assert found == other.next_after(moment)
        if found is None:
            break
        moment = found


def named(days: Iterator[date], hours: set[int], minutes: set[int], tz: str) -> set[datetime]:
    """Each named time of each day, once: when it is first shown, or at the first minute after the gap it lies in."""
    zone, found = ZoneInfo(tz), set()
    for day in days:
        for hour in hours:
            for minute in minutes:
                wall = datetime.combine(day, time(hour, minute))
                # All minutes around: the clock shows this time, or has just jumped over it.
                moment = wall.replace(tzinfo=UTC) - timedelta(hours=15)
                while moment.astimezone(zone).replace(tzinfo=None) < wall:
                    moment += MINUTE
                found.add(moment)
    return found


@given(some(23), some(59), st.sampled_from(ZONES), st.dates(date(2015, 1, 1), date(2030, 1, 1)))
@settings(deadline=None, max_examples=30)
def test_named_times_come_once_a_day_by_the_minute(hours: set[int], minutes: set[int], tz: str, day: date) -> None:
    trigger = calendar(hours=hours, minutes=minutes, tz=tz)
    days = [day + timedelta(days=number) for number in range(-1, 4)]
    start = datetime.combine(day, time(0), ZoneInfo(tz)).astimezone(UTC) - MINUTE
    end = start + timedelta(days=2)
    assert moments(trigger, start, end) == sorted(
        moment for moment in named(iter(days), hours, minutes, tz) if start < moment <= end
    )


def moments(trigger: Trigger, start: datetime, end: datetime) -> list[datetime]:
    found = []
    moment = trigger.next_after(start)
    while moment is not None and moment <= end:
        found.append(moment)
        moment = trigger.next_after(moment)
    return found


@pytest.mark.parametrize(
    ("tz", "day"),
    [
        ("Europe/Paris", date(2024, 3, 31)),
        ("Europe/Paris", date(2024, 10, 27)),
        ("Australia/Lord_Howe", date(2024, 10, 6)),
        ("Australia/Lord_Howe", date(2024, 4, 7)),
        ("America/New_York", date(2024, 3, 10)),
        ("America/New_York", date(2024, 11, 3)),
    ],
)
def test_named_and_open_hours_on_days_on_which_the_clock_is_turned(tz: str, day: date) -> None:
    zone, minutes = ZoneInfo(tz), {0, 20, 45}
    start = datetime.combine(day, time(0), zone).astimezone(UTC) - MINUTE
    end = start + timedelta(hours=30)
    days = [day + timedelta(days=number) for number in range(-1, 3)]
    hours = set(range(12))
    expected = sorted(moment for moment in named(iter(days), hours, minutes, tz) if start < moment <= end)
    assert moments(calendar(hours=hours, minutes=minutes, tz=tz), start, end) == expected
    # With the hour left open: every minute at which the clock shows such a time.
    every_minute = [start + number * MINUTE for number in range(1, 30 * 60 + 1)]
    shown = [moment for moment in every_minute if moment.astimezone(zone).minute in minutes]
    assert moments(calendar(minutes=minutes, tz=tz), start, end) == shown


@given(st.integers(1, 10**8), MOMENTS, MOMENTS)
@settings(deadline=None)
def test_intervals_are_whole_multiples_from_their_anchor(ms: int, anchor: datetime, moment: datetime) -> None:
    anchor = anchor.replace(microsecond=anchor.microsecond // 1000 * 1000)
    trigger = every(seconds=ms / 1000, anchor=anchor)
    found = trigger.next_after(moment)
    assert found is not None
    assert (found - anchor) % timedelta(milliseconds=ms) == timedelta(0)
    assert found - moment <= timedelta(milliseconds=ms)


@given(TRIGGERS, MOMENTS)
@settings(deadline=None)
def test_ticks_are_whole_milliseconds_and_go_up(trigger: Trigger, moment: datetime) -> None:
    ticks = [int(moment.timestamp() * 1000)]
    for _ in range(4):
        following = next_tick(trigger, ticks[-1])
        if following is None:
            break
        ticks.append(following)
    assert all(first < second for first, second in pairwise(ticks))
    assert all(moment_of(tick) >= moment_of(ticks[0]) for tick in ticks)


class Odd:
    """A stranger's trigger."""

    def __init__(self, answer: datetime | None) -> None:
        self.answer = answer

    def next_after(self, moment: datetime) -> datetime | None:
        del moment
        return self.answer

    def describe(self) -> dict[str, Any]:
        return {"use": "odd"}


def test_a_stranger_s_trigger_is_held_to_its_word() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    after = int(noon.timestamp() * 1000)
    with pytest.raises(ValueError, match="is not after"):
        next_tick(Odd(noon), after)
    with pytest.raises(ValueError, match="no time zone"):
        next_tick(Odd(datetime(2024, 1, 1, 13)), after)  # noqa: DTZ001
    # A part of a millisecond later is the next whole one.
    assert next_tick(Odd(noon + timedelta(microseconds=1)), after) == after + 1
    assert next_tick(Odd(None), after) is None


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: cron("* * * *"), "has 4 fields"),
        (lambda: cron("61 * * * *"), "bad minute field '61'"),
        (lambda: cron("0 0 30 2 *"), "day"),
        (lambda: cron("0 9 * * *", tz="Europe/Pairs"), "Europe/Paris"),
        (lambda: every(), "at least a millisecond"),
        (lambda: every(seconds=-1), "not negative"),
        (lambda: every(seconds=float("nan")), "not negative"),
        (lambda: every(minutes=5, anchor=datetime(2024, 1, 1)), "no time zone"),  # noqa: DTZ001
        (lambda: calendar(), "at least one of"),
        (lambda: calendar(hours={24}), "calendar hours: 24 is not one of 0 to 23"),
        (lambda: calendar(weekdays={"funday"}), "'funday'"),
        (lambda: calendar(days={31}, months={2, 4}), "there is no such day"),
        (lambda: once(datetime(2024, 1, 1)), "no time zone"),  # noqa: DTZ001
    ],
)
def test_a_mistake_is_told_where_the_trigger_is_made(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()
