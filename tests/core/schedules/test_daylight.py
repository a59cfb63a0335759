"""What daylight saving time does to wall-clock triggers, against real turns of real clocks.

Every line of the table was worked out by hand from the dates on which those clocks were turned.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from camora import calendar, cron
from camora.interfaces.schedule import Trigger

PARIS, YORK, HOWE, PAULO = "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"
GAZA, CASA, APIA, DUBLIN = "Asia/Gaza", "Africa/Casablanca", "Pacific/Apia", "Europe/Dublin"


def ticks(trigger: Trigger, start: str, count: int) -> list[str]:
    """The next ticks after a UTC moment, as UTC texts."""
    moment: datetime | None = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        assert moment is not None
        moment = trigger.next_after(moment)
        if moment is None:
            break
        assert moment.tzinfo is UTC
        found.append(moment.strftime("%Y-%m-%d %H:%M"))
    return found


GOLDEN = [
    # The clock goes from 02:00 to 03:00: what is named in between comes at the first moment after the gap.
    ("paris gap", cron("30 2 * * *", tz=PARIS), "2024-03-30 12:00", ["2024-03-31 01:00", "2024-04-01 00:30"]),
    ("paris gap, its first moment", cron("0 2 * * *", tz=PARIS), "2024-03-30 12:00", ["2024-03-31 01:00"]),
    ("paris gap, its end", cron("0 3 * * *", tz=PARIS), "2024-03-30 12:00", ["2024-03-31 01:00", "2024-04-01 01:00"]),
    # Several named times of one gap come together, once.
    ("paris gap, two", cron("15,45 2 * * *", tz=PARIS), "2024-03-30 12:00",
     ["2024-03-31 01:00", "2024-04-01 00:15", "2024-04-01 00:45"]),
    ("paris gap and after", cron("30 2,3 * * *", tz=PARIS), "2024-03-30 12:00",
     ["2024-03-31 01:00", "2024-03-31 01:30", "2024-04-01 00:30"]),
    # It goes from 03:00 back to 02:00: what is named comes the first time only.
    ("paris fold", cron("30 2 * * *", tz=PARIS), "2024-10-26 12:00", ["2024-10-27 00:30", "2024-10-28 01:30"]),
    ("paris fold, its first moment", cron("0 2 * * *", tz=PARIS), "2024-10-26 12:00",
     ["2024-10-27 00:00", "2024-10-28 01:00"]),
    ("paris fold, its end", cron("0 3 * * *", tz=PARIS), "2024-10-26 12:00", ["2024-10-27 02:00", "2024-10-28 02:00"]),
    ("paris fold, from within its second pass", cron("45 2 * * *", tz=PARIS), "2024-10-27 01:10", ["2024-10-28 01:45"]),
    ("paris fold, by calendar", calendar(hours={2}, minutes={30}, tz=PARIS), "2024-10-26 12:00",
     ["2024-10-27 00:30", "2024-10-28 01:30"]),
    # A pattern that leaves the hour open runs on through both.
    ("paris gap, half-hourly", cron("*/30 * * * *", tz=PARIS), "2024-03-31 00:10",
     ["2024-03-31 00:30", "2024-03-31 01:00", "2024-03-31 01:30"]),
    ("paris fold, half-hourly", calendar(minutes={0, 30}, tz=PARIS), "2024-10-26 23:40",
     ["2024-10-27 00:00", "2024-10-27 00:30", "2024-10-27 01:00", "2024-10-27 01:30", "2024-10-27 02:00"]),
    ("york gap", cron("30 2 * * *", tz=YORK), "2024-03-09 12:00", ["2024-03-10 07:00", "2024-03-11 06:30"]),
    ("york fold", cron("30 1 * * *", tz=YORK), "2024-11-02 12:00", ["2024-11-03 05:30", "2024-11-04 06:30"]),
    ("york fold, hourly", cron("15 * * * *", tz=YORK), "2024-11-03 04:30",
     ["2024-11-03 05:15", "2024-11-03 06:15", "2024-11-03 07:15"]),
    ("york, every two hours over the gap", cron("0 */2 * * *", tz=YORK), "2024-03-10 04:30",
     ["2024-03-10 05:00", "2024-03-10 07:00", "2024-03-10 08:00"]),
    # Half an hour: 02:00 to 02:30 in October, 02:00 to 01:30 in April.
    ("howe gap", cron("10 2 * * *", tz=HOWE), "2024-10-05 00:00", ["2024-10-05 15:30", "2024-10-06 15:10"]),
    ("howe fold", cron("45 1 * * *", tz=HOWE), "2024-04-06 00:00", ["2024-04-06 14:45", "2024-04-07 15:15"]),
    ("howe fold, twice an hour", calendar(minutes={0, 45}, tz=HOWE), "2024-04-06 13:50",
     ["2024-04-06 14:00", "2024-04-06 14:45", "2024-04-06 15:15", "2024-04-06 15:30", "2024-04-06 16:15"]),
    # Midnight itself is skipped: 4 November 2018 began at 01:00.
    ("paulo gap at midnight", cron("0 0 * * *", tz=PAULO), "2018-11-03 12:00",
     ["2018-11-04 03:00", "2018-11-05 02:00"]),
    # Midnight is reached twice, and is named once: at the end of the second 23:00 to 24:00.
    ("paulo fold at midnight", cron("0 0 * * *", tz=PAULO), "2019-02-16 12:00",
     ["2019-02-17 03:00", "2019-02-18 03:00"]),
    ("paulo fold, half past eleven", cron("30 23 * * *", tz=PAULO), "2019-02-16 12:00",
     ["2019-02-17 01:30", "2019-02-18 02:30"]),
    ("gaza gap at midnight", cron("30 0 * * *", tz=GAZA), "2015-03-27 12:00", ["2015-03-27 22:00", "2015-03-28 21:30"]),
    ("gaza gap at one", cron("30 1 * * *", tz=GAZA), "2016-03-25 12:00", ["2016-03-25 23:00", "2016-03-26 22:30"]),
    # Twice in one year, around Ramadan.
    ("casablanca, into ramadan", cron("30 2 * * *", tz=CASA), "2019-05-04 12:00",
     ["2019-05-05 01:30", "2019-05-06 02:30"]),
    ("casablanca, out of ramadan", cron("30 2 * * *", tz=CASA), "2019-06-08 12:00",
     ["2019-06-09 02:00", "2019-06-10 01:30"]),
    # A zone that calls winter the exception.
    ("dublin gap", cron("30 1 * * *", tz=DUBLIN), "2024-03-30 12:00", ["2024-03-31 01:00", "2024-04-01 00:30"]),
    ("dublin fold", cron("30 1 * * *", tz=DUBLIN), "2024-10-26 12:00", ["2024-10-27 00:30", "2024-10-28 01:30"]),
    # 30 December 2011 was left out altogether: its noon comes with the first moment of the 31st.
    ("apia, a skipped day", cron("0 12 * * *", tz=APIA), "2011-12-29 12:00",
     ["2011-12-29 22:00", "2011-12-30 10:00", "2011-12-30 22:00"]),
    ("apia, hourly over the skipped day", cron("0 * * * *", tz=APIA), "2011-12-30 08:30",
     ["2011-12-30 09:00", "2011-12-30 10:00", "2011-12-30 11:00"]),
    # The calendar's own gaps.
    ("29 february", cron("0 0 29 2 *"), "2023-01-01 00:00", ["2024-02-29 00:00", "2028-02-29 00:00"]),
    ("29 february, not in 2100", calendar(days={29}, months={2}), "2096-03-01 00:00", ["2104-02-29 00:00"]),
    ("a 29 february on a monday", calendar(days={29}, months={2}, weekdays={"mon"}), "1968-01-01 00:00",
     ["1988-02-29 00:00", "2016-02-29 00:00"]),
    ("the 31st", cron("0 0 31 * *"), "2024-01-31 00:00", ["2024-03-31 00:00", "2024-05-31 00:00", "2024-07-31 00:00"]),
    ("month ends by cron", cron("0 0 L * *"), "2024-01-15 00:00",
     ["2024-01-31 00:00", "2024-02-29 00:00", "2024-03-31 00:00"]),
    ("month ends by calendar", calendar(days={-1}), "2023-01-15 00:00",
     ["2023-01-31 00:00", "2023-02-28 00:00", "2023-03-31 00:00", "2023-04-30 00:00"]),
    ("either day field suffices", cron("0 0 13 * 5"), "2024-09-01 00:00",
     ["2024-09-06 00:00", "2024-09-13 00:00", "2024-09-20 00:00", "2024-09-27 00:00", "2024-10-04 00:00",
      "2024-10-11 00:00",
      "2024-10-13 00:00"]),
    ("both day sets must fit", calendar(days={13}, weekdays={"fri"}), "2024-01-01 00:00",
     ["2024-09-13 00:00", "2024-12-13 00:00"]),
    ("new year", cron("@yearly", tz="Asia/Tokyo"), "2024-06-01 00:00", ["2024-12-31 15:00", "2025-12-31 15:00"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("trigger", "start", "expected"), [line[1:] for line in GOLDEN], ids=[line[0] for line in GOLDEN]
)
def test_the_golden_table(trigger: Trigger, start: str, expected: list[str]) -> None:
    assert ticks(trigger, start, len(expected)) == expected


@pytest.mark.parametrize("zone", [PARIS, YORK, HOWE, PAULO, GAZA, CASA, DUBLIN, "Asia/Tehran", "America/Caracas"])
@pytest.mark.parametrize("minute", ["0 0", "30 1", "30 2", "0 3", "59 23"])
def test_a_named_time_comes_once_on_every_day_for_decades(zone: str, minute: str) -> None:
    clock_minute, clock_hour = map(int, minute.split())
    trigger = cron(f"{minute} * * *", tz=zone)
    for start, count in [(datetime(2000, 1, 1, 12, tzinfo=UTC), 366), *around_turns(zone)]:
        moment, seen = start, list[datetime]()
        for _ in range(count):
            found = trigger.next_after(moment)
            assert found is not None
            moment = found
            seen.append(moment.astimezone(ZoneInfo(zone)))
        days = [shown.date() for shown in seen]
        assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))
        assert start < moment < start + timedelta(days=count + 1)
        # Shown as named, or just after a gap: never earlier, never by more than the gap.
        for shown in seen:
            late = timedelta(hours=shown.hour - clock_hour, minutes=shown.minute - clock_minute)
            assert timedelta(0) <= late <= timedelta(hours=1)
        # Nothing but a gap makes it late, and none of these spans has two.
        assert sum((shown.hour, shown.minute) != (clock_hour, clock_minute) for shown in seen) <= 1


@functools.cache
def around_turns(zone: str) -> list[tuple[datetime, int]]:
    """The six days around each day, in 25 years, in which the clock is turned. All others are like one another."""
    noons = [datetime(2000, 1, 1, 12, tzinfo=UTC) + timedelta(days=number) for number in range(25 * 366)]
    offsets = [noon.astimezone(ZoneInfo(zone)).utcoffset() for noon in noons]
    turns = [noon for noon, (one, other) in zip(noons, pairwise(offsets), strict=False) if one != other]
    assert turns
    return [(turn - timedelta(days=3), 6) for turn in turns]


@pytest.mark.parametrize("zone", [PARIS, HOWE, PAULO, CASA])
def test_a_pattern_without_hours_never_pauses_and_never_hurries(zone: str) -> None:
    trigger = calendar(minutes={0, 30}, tz=zone)
    moment = datetime(2018, 10, 1, tzinfo=UTC)
    while moment < datetime(2019, 11, 30, tzinfo=UTC):
        found = trigger.next_after(moment)
        assert found == moment + timedelta(minutes=30)
        moment = found
