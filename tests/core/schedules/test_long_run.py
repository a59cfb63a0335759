"""Ten thousand days, and clocks that are wrong."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from camora import calendar, cron, every
from camora.testing.clock import VirtualClock

from .shop import START, Shop, stamp

DAYS = 10_000
PARIS, YORK = ZoneInfo("Europe/Paris"), ZoneInfo("America/New_York")


async def test_nothing_drifts_in_ten_thousand_days(shop: Shop) -> None:
    shop.app.schedule("paris", shop.report.s(), cron("30 2 * * *", tz="Europe/Paris"))
    shop.app.schedule("york", shop.report.s(), calendar(hours={9}, minutes={15}, tz="America/New_York"))
    shop.app.schedule("interval", shop.report.s(), every(hours=24, anchor=START + timedelta(seconds=7.123)))
    scheduler = shop.scheduler()
    await scheduler.run_due()
    end = START + timedelta(days=DAYS)
    while (due := await scheduler.next_due()) is not None and due <= stamp(end):
        shop.clock.advance((due - shop.clock.now_ms()) / 1000)
        # By the sum of its fractions the clock may come a millisecond early; then nothing fires.
        if shop.clock.now_ms() >= due:
            await scheduler.run_due()
        else:
            shop.clock.advance(0.001)

    ticks: dict[str, list[datetime]] = {}
    for message in shop.messages:
        moment = datetime.fromisoformat(message.headers["camora.tick"])
        assert 0 <= message.created - stamp(moment) <= 1
        ticks.setdefault(message.headers["camora.schedule"], []).append(moment)
    assert len(shop.desk.sent) == len(shop.messages) == scheduler.fired

    assert ticks["interval"] == [START + timedelta(days=day, seconds=7.123) for day in range(DAYS)]
    first = START.date() + timedelta(days=1)
    days = [first + timedelta(days=day) for day in range(DAYS)]
    # Where 02:30 is skipped, the clock shows 03:00 instead.
    shown = [moment.astimezone(PARIS) for moment in ticks["paris"]]
    assert [moment.date() for moment in shown] == days
    odd = [moment for moment in shown if moment.time() != time(2, 30)]
    assert {moment.time() for moment in odd} == {time(3, 0)}
    assert [moment.year for moment in odd] == list(range(2024, 2024 + len(odd)))
    assert len(odd) >= DAYS // 366
    assert all(moment.fold == 0 for moment in shown)
    wanted = [datetime.combine(day, time(9, 15), YORK).astimezone(UTC) for day in [START.date(), *days[:-1]]]
    assert ticks["york"] == wanted


@pytest.mark.parametrize("seconds", [0.1, 1 / 3, 0.7, 7])
async def test_short_intervals_do_not_add_up_their_fractions(shop: Shop, seconds: float) -> None:
    shop.app.schedule("quick", shop.report.s(), every(seconds=seconds), catch_up="all")
    scheduler = shop.scheduler()
    await scheduler.run_due()
    shop.clock.advance(900 * seconds)
    await scheduler.run_due()
    interval = round(seconds * 1000)
    ticks = [stamp(datetime.fromisoformat(message.headers["camora.tick"])) for message in shop.messages]
    first = (stamp(START) // interval + 1) * interval
    assert ticks == [first + number * interval for number in range(len(ticks))]
    assert len(ticks) >= 899


class TurnedClock(VirtualClock):
    """A wall clock that somebody turns; what has elapsed goes on as before."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self.turned = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.turned


async def test_a_clock_that_ran_ahead_for_a_moment_costs_no_year(caplog: pytest.LogCaptureFixture) -> None:
    clock = TurnedClock(stamp(START))
    shop = Shop(clock=clock)
    async with shop.app:
        shop.app.schedule("pulse", shop.report.s(), every(minutes=1))
        scheduler = shop.scheduler()
        await scheduler.start()
        store = await shop.app.schedules.parts.store()
        clock.turned = 365 * 86_400_000
        clock.advance(0)
        while not shop.messages:
            await store.changed(0.01)
        ahead = await shop.app.schedules.get("pulse")
        while ahead.next is None or ahead.next < START + timedelta(days=364):
            await store.changed(0.01)
            ahead = await shop.app.schedules.get("pulse")
        with caplog.at_level(logging.WARNING, "camora"):
            clock.turned = 0
            clock.advance(0)
            # 12:01 has fired, while the clock was ahead.
            while (await shop.app.schedules.get("pulse")).next != datetime(2024, 1, 1, 12, 2, tzinfo=UTC):
                await store.changed(0.01)
        assert "the clock was set back" in caplog.text
        clock.advance(90)
        while len(shop.messages) < 2:
            await store.changed(0.01)
        await scheduler.close()
    assert shop.ticks == ["12:01", "12:02"]


async def test_a_clock_that_is_set_back_a_little_repeats_no_tick() -> None:
    clock = TurnedClock(stamp(START))
    shop = Shop(clock=clock)
    async with shop.app:
        shop.app.schedule("pulse", shop.report.s(), every(minutes=1))
        await shop.app.schedules.sync()
        for _ in range(5):
            clock.advance(60)
            assert await shop.scheduler().run_due() == 1
        clock.turned = -3 * 60_000
        scheduler = shop.scheduler()  # it plans anew when it starts
        assert await scheduler.run_due() == 0
        for _ in range(5):
            clock.advance(60)
            await scheduler.run_due()
    assert shop.ticks == ["12:01", "12:02", "12:03", "12:04", "12:05", "12:06", "12:07"]
