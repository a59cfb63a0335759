"""The scheduler, step by step, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from camora import cron, every, once
from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain
from camora.interfaces.observer import Event, Observer, ScheduleFired
from camora.interfaces.schedule import CatchUp, ScheduleRecord
from camora.schedules.ticks import tick_id

from .shop import START, Shop, stamp

# What a tick sends


async def test_a_tick_is_a_job_with_an_id_that_follows_from_key_and_tick(shop: Shop) -> None:
    shop.app.schedule("pulse", shop.report.options(priority=3, headers={"from": "me"}).s("a"), every(minutes=1))
    scheduler = shop.scheduler()
    assert await scheduler.run_due() == 0
    shop.clock.advance(30)
    assert await scheduler.run_due() == 1
    assert await scheduler.run_due() == 0
    [message] = shop.messages
    [record] = await (await shop.app.schedules.parts.store()).get(["pulse"])
    assert record is not None
    noon = stamp(datetime(2024, 1, 1, 12, 1, tzinfo=UTC))
    assert message.id == tick_id(record, noon) == record.last_job
    assert (record.last, record.next) == (noon, noon + 60_000)
    assert (message.task, message.queue, message.priority, message.created) == ("report", "reports", 3, noon)
    assert message.kwargs == {"name": "a"}
    assert message.headers == {
        "from": "me",
        "camora.schedule": "pulse",
        "camora.tick": "2024-01-01T12:01:00+00:00",
    }
    assert (await (await shop.app.job(message.id)).info()).task == "report"


def test_ids_differ_by_key_by_tick_and_by_app_and_sort_by_time() -> None:
    def made(key: str = "k", tick: int = 1_700_000_000_000, app: str = "a") -> str:
        return tick_id(ScheduleRecord(key=key, app=app), tick)

    assert made() == made()
    assert len({made(), made(key="l"), made(app="b"), made(tick=1_700_000_000_001)}) == 4
    assert made() < made(tick=1_700_000_000_001)


async def test_delays_and_expiry_count_from_the_tick_s_sending(shop: Shop) -> None:
    shop.app.schedule("late", shop.report.options(delay=5, expires=60).s(), every(minutes=1))
    scheduler = shop.scheduler()
    await scheduler.run_due()
    shop.clock.advance(30)
    await scheduler.run_due()
    [message] = shop.messages
    now = shop.clock.now_ms()
    assert (message.created, message.due, message.expires) == (now, now + 5000, now + 60_000)


class Seen(Observer):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.fired: list[ScheduleFired] = []

    async def observe(self, events: Sequence[Event]) -> None:
        self.fired += [event for event in events if isinstance(event, ScheduleFired)]


async def test_observers_are_told_of_each_tick() -> None:
    seen = Seen()
    shop = Shop(observers=[seen])
    async with shop.app:
        shop.app.schedule("pulse", shop.report.s(), every(minutes=1), catch_up="all")
        await shop.app.schedules.sync()
        shop.clock.advance(180)
        assert await shop.scheduler().run_due() == 3
        await shop.app.events.flush()
    noon = stamp(datetime(2024, 1, 1, 12, tzinfo=UTC))
    assert [(event.key, event.tick - noon, event.at) for event in seen.fired] == [
        ("pulse", minute * 60_000, shop.clock.now_ms()) for minute in (1, 2, 3)
    ]
    assert [event.job_id for event in seen.fired] == [message.id for message in shop.messages]


# Missed ticks


@pytest.mark.parametrize(
    ("catch_up", "away", "ticks"),
    [
        ("one", 0.5, ["12:01"]),
        ("one", 5, ["12:01"]),
        ("all", 5, ["12:01", "12:02", "12:03", "12:04", "12:05"]),
        # What came within the last minute is late, not missed: a killed scheduler is replaced in less.
        ("none", 5, ["12:05"]),
        ("none", 1, ["12:01"]),
    ],
)
async def test_ticks_missed_while_no_scheduler_ran(
    shop: Shop, catch_up: CatchUp, away: float, ticks: list[str]
) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(minutes=1), catch_up=catch_up)
    await shop.app.schedules.sync()
    shop.clock.advance(60 * away)
    scheduler = shop.scheduler()
    assert await scheduler.run_due() == len(ticks)
    assert shop.ticks == ticks
    shop.clock.advance(60)
    assert await scheduler.run_due() == 1
    assert len(shop.ticks) == len(ticks) + 1


async def test_none_makes_up_for_nothing_that_is_older_than_a_minute(shop: Shop) -> None:
    shop.app.schedule("hourly", shop.report.s(), every(hours=1), catch_up="none")
    await shop.app.schedules.sync()
    shop.clock.advance(3600 * 3)
    scheduler = shop.scheduler()
    assert await scheduler.run_due() == 1  # 15:00:00, half a minute ago
    shop.clock.advance(3600 * 3 + 31)
    assert await scheduler.run_due() == 0  # 18:00:00, 61 seconds ago
    assert await scheduler.next_due() == stamp(datetime(2024, 1, 1, 19, tzinfo=UTC))


async def test_all_makes_up_for_the_last_thousand_in_order(shop: Shop) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(seconds=1), catch_up="all")
    await shop.app.schedules.sync()
    shop.clock.advance(5000)
    assert await shop.scheduler().run_due() == 1000
    moments = [message.headers["camora.tick"] for message in shop.messages]
    wanted = [START + timedelta(seconds=number) for number in range(4001, 5001)]
    assert moments == [moment.isoformat() for moment in wanted]


async def test_all_after_a_century_takes_no_century(shop: Shop) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(seconds=1), catch_up="all")
    await shop.app.schedules.sync()
    shop.clock.advance(100 * 365 * 86400)
    assert await shop.scheduler().run_due() == 1000
    assert await shop.queued() == 1000


# Overlap


async def test_skip_leaves_ticks_out_while_the_job_before_is_unfinished(shop: Shop) -> None:
    shop.app.schedule("slow", shop.report.s(), every(minutes=1), overlap="skip")
    scheduler = shop.scheduler()
    await scheduler.run_due()
    shop.clock.advance(30)
    assert await scheduler.run_due() == 1
    for _ in range(3):
        shop.clock.advance(60)
        assert await scheduler.run_due() == 0  # it waits in the queue
    await (await shop.app.job(shop.messages[0].id)).cancel()
    shop.clock.advance(60)
    assert await scheduler.run_due() == 1
    assert shop.ticks == ["12:01", "12:05"]


@pytest.mark.parametrize("results", [None, False], ids=["with results", "without"])
async def test_skip_waits_for_running_jobs_and_not_for_dead_ones(results: bool | None) -> None:
    shop = Shop(results=results)
    begun, release = asyncio.Event(), asyncio.Event()

    @shop.app.task(name="slow", queue="reports")
    async def slow() -> None:
        begun.set()
        await release.wait()
        raise LookupError("it fails for good")

    shop.app.schedule("slow", slow.s(), every(minutes=1), overlap="skip")
    async with shop.app, shop.app.worker():
        scheduler = shop.scheduler()
        await scheduler.run_due()
        shop.clock.advance(30)
        assert await scheduler.run_due() == 1
        await begun.wait()
        shop.clock.advance(60)
        assert await scheduler.run_due() == 0
        release.set()
        while not [letter async for letter in shop.app.dead_letters()]:
            await asyncio.sleep(0.005)
        shop.clock.advance(60)
        assert await scheduler.run_due() == 1
    assert shop.ticks == ["12:01", "12:03"]


async def test_allow_does_not_ask(shop: Shop) -> None:
    shop.app.schedule("quick", shop.report.s(), every(minutes=1))
    scheduler = shop.scheduler()
    await scheduler.run_due()
    for _ in range(3):
        shop.clock.advance(60)
        assert await scheduler.run_due() == 1
    assert await shop.queued() == 3


async def test_all_and_skip_together_make_up_for_one(shop: Shop) -> None:
    shop.app.schedule("both", shop.report.s(), every(minutes=1), catch_up="all", overlap="skip")
    await shop.app.schedules.sync()
    shop.clock.advance(300)
    assert await shop.scheduler().run_due() == 1
    assert shop.ticks == ["12:01"]
    assert await shop.scheduler().next_due() == stamp(datetime(2024, 1, 1, 12, 6, tzinfo=UTC))


# Operating


async def test_what_is_paused_does_not_fire_and_what_is_resumed_leaves_out_what_came_meanwhile(shop: Shop) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(minutes=1), catch_up="all")
    scheduler = shop.scheduler()
    await scheduler.run_due()
    await shop.app.schedules.pause("pulse")
    shop.clock.advance(600)
    assert await scheduler.run_due() == 0
    assert await scheduler.next_due() is None
    await shop.app.schedules.sync()  # a deploy
    assert (await shop.app.schedules.get("pulse")).paused
    await shop.app.schedules.resume("pulse")
    assert await scheduler.run_due() == 0
    shop.clock.advance(30)
    assert await scheduler.run_due() == 1
    assert shop.ticks == ["12:11"]


async def test_run_now_is_a_job_beside_the_ticks(shop: Shop) -> None:
    shop.app.schedule("pulse", shop.report.s("x"), every(minutes=1))
    scheduler = shop.scheduler()
    await scheduler.run_due()
    await shop.app.schedules.pause("pulse")
    before = await shop.app.schedules.get("pulse")
    first, second = await shop.app.schedules.run_now("pulse"), await shop.app.schedules.run_now("pulse")
    assert first.id != second.id
    assert await shop.queued() == 2
    assert shop.messages[0].headers == {"camora.schedule": "pulse"}
    assert await shop.app.schedules.get("pulse") == before
    async with shop.app.worker():
        assert await first.result(60) == "x"


async def test_what_is_removed_is_gone(shop: Shop) -> None:
    await shop.app.schedules.add("pulse", shop.report, every(minutes=1))
    scheduler = shop.scheduler()
    await shop.app.schedules.remove("pulse")
    shop.clock.advance(600)
    assert await scheduler.run_due() == 0
    for step in (shop.app.schedules.pause, shop.app.schedules.remove, shop.app.schedules.run_now):
        with pytest.raises(ConfigurationError, match="there is no schedule 'pulse'"):
            await step("pulse")


async def test_a_scheduler_of_a_group_leaves_the_others(shop: Shop) -> None:
    shop.app.schedule("here", shop.report.s("here"), every(minutes=1))
    shop.app.schedule("jp", shop.report.s("jp"), every(minutes=1), group="jp")
    shop.app.schedule("eu", shop.report.s("eu"), every(minutes=1), group="eu")
    far, rest = shop.scheduler("jp", "eu"), shop.scheduler()
    await far.run_due()
    shop.clock.advance(30)
    assert await far.run_due() == 2
    assert {message.kwargs["name"] for message in shop.messages} == {"jp", "eu"}
    assert await rest.run_due() == 1


# Deploys


async def test_a_deploy_changes_what_is_declared_and_nothing_else(shop: Shop) -> None:
    shop.app.schedule("stays", shop.report.s(), every(minutes=1))
    shop.app.schedule("changes", shop.report.s(), every(minutes=1))
    shop.app.schedule("goes", shop.report.s(), every(minutes=1))
    await shop.app.schedules.sync()
    await shop.app.schedules.add("added", shop.report, every(minutes=1))
    other = shop.again(app="stock")
    async with other.app:
        other.app.schedule("theirs", other.report.s(), every(minutes=1))
        await other.app.schedules.sync()
    stays = await shop.app.schedules.get("stays")
    new = shop.again()
    async with new.app:
        new.app.schedule("stays", new.report.s(), every(minutes=1))
        new.app.schedule("changes", new.report.s(), every(hours=1))
        await new.app.schedules.sync()
        assert [row.key for row in await new.app.schedules.list()] == ["added", "changes", "stays", "theirs"]
        assert await new.app.schedules.get("stays") == stays
        assert (await new.app.schedules.get("changes")).next == datetime(2024, 1, 1, 13, tzinfo=UTC)


async def test_a_task_that_is_registered_after_its_schedule_counts_with_its_options_and_parameters(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    # So it is with schedules in settings, which are read before the tasks are made.
    shop.app.schedule("late", shop.app._signature("late", (), {"name": "a"}), every(minutes=1))
    shop.app.schedule("never", shop.app._signature("nevr", (), {}), every(minutes=1))

    @shop.app.task(name="late", queue="reports", priority=4)
    async def late(name: str) -> str:
        return name

    scheduler = shop.scheduler()
    await scheduler.run_due()
    assert "schedule never: this app has no task 'nevr'" in caplog.text
    assert "schedule late" not in caplog.text
    shop.clock.advance(30)
    assert await scheduler.run_due() == 2
    queues = {message.task: (message.queue, message.priority) for message in shop.messages}
    assert queues == {"late": ("reports", 4), "nevr": ("default", 0)}


async def test_arguments_that_do_not_fit_are_told_with_the_schedule_when_the_scheduler_starts(shop: Shop) -> None:
    shop.app.schedule("wrong", shop.app._signature("late", (), {"nam": "a"}), every(minutes=1))

    @shop.app.task(name="late", queue="reports")
    async def late(name: str) -> str:
        return name

    with pytest.raises(ConfigurationError, match=r"schedule 'wrong': late: .*nam"):
        await shop.scheduler().start()
    assert await shop.app.schedules.list() == []


async def test_what_was_added_and_what_is_declared_do_not_take_each_other_s_place(shop: Shop) -> None:
    await shop.app.schedules.add("k", shop.report, every(minutes=1))
    shop.app.schedule("k", shop.report.s(), every(hours=1))
    with pytest.raises(ConfigurationError, match="'k'"):
        await shop.scheduler().run_due()
    assert (await shop.app.schedules.get("k")).trigger == "every(seconds=60)"
    with pytest.raises(ConfigurationError, match="needs a key of its own"):
        await shop.app.schedules.add("k", shop.report, every(hours=1))


async def test_a_single_moment_fires_once_and_then_one_added_is_forgotten(shop: Shop) -> None:
    at = START + timedelta(minutes=5)
    shop.app.schedule("declared", shop.report.s(), once(at))
    await shop.app.schedules.add("added", shop.report, once(at))
    scheduler = shop.scheduler()
    await scheduler.run_due()
    shop.clock.advance(300)
    assert await scheduler.run_due() == 2
    assert [row.key for row in await shop.app.schedules.list()] == ["declared"]
    # The next deploy declares it again, and it has been.
    assert await shop.scheduler().run_due() == 0
    assert (await shop.app.schedules.get("declared")).next is None


# When things go wrong


async def test_what_could_not_be_sent_is_sent_under_the_same_id_when_the_lease_is_over(shop: Shop) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(minutes=1))
    scheduler = shop.scheduler()
    await scheduler.run_due()
    shop.clock.advance(30)
    shop.desk.before.append(BrokerUnavailable("gone for lunch"))
    with pytest.raises(BrokerUnavailable):
        await scheduler.run_due()
    assert await scheduler.run_due() == 0  # lent, still
    shop.clock.advance(5)
    assert await scheduler.run_due() == 1
    assert shop.ticks == ["12:01"]
    [record] = await (await shop.app.schedules.parts.store()).get(["pulse"])
    assert record is not None
    assert shop.messages[0].id == tick_id(record, stamp(datetime(2024, 1, 1, 12, 1, tzinfo=UTC)))


@pytest.mark.parametrize("catch_up", ["one", "all"])
async def test_what_was_sent_without_an_answer_is_no_second_job(shop: Shop, catch_up: CatchUp) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(minutes=1), catch_up=catch_up)
    await shop.app.schedules.sync()
    shop.clock.advance(300)
    shop.desk.after.append(DispatchUncertain("who knows", job_id="?"))
    scheduler = shop.scheduler()
    with pytest.raises(DispatchUncertain):
        await scheduler.run_due()
    shop.clock.advance(5)
    sent = await shop.scheduler().run_due()
    assert sent == (1 if catch_up == "one" else 5)
    assert len(shop.desk.sent) == sent + 1
    assert await shop.queued() == sent


async def test_a_lease_that_is_lost_in_the_middle_doubles_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(minutes=1))
    slow, quick = shop.scheduler(), shop.scheduler()
    await slow.run_due()
    await quick.run_due()
    shop.clock.advance(30)
    store = await shop.app.schedules.parts.store()
    advance = store.advance
    sent, release = asyncio.Event(), asyncio.Event()

    async def held(*args: Any, **kwargs: Any) -> bool:
        sent.set()
        await release.wait()
        return await advance(*args, **kwargs)

    store.advance = held  # type: ignore[method-assign]
    work = asyncio.create_task(slow.run_due())
    await sent.wait()
    store.advance = advance  # type: ignore[method-assign]
    assert await quick.run_due() == 0  # lent to the slow one
    shop.clock.advance(5)
    assert await quick.run_due() == 1
    shop.clock.advance(60)
    assert await quick.run_due() == 1  # the next tick
    with caplog.at_level(logging.DEBUG, "camora"):
        release.set()
        await work
    assert "changed or taken over" in caplog.text
    assert await shop.queued() == 2
    assert shop.ticks == ["12:01", "12:01", "12:02"]
    assert (await shop.app.schedules.get("pulse")).last == datetime(2024, 1, 1, 12, 2, tzinfo=UTC)


async def test_what_is_wrong_with_one_schedule_stops_no_other(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    store = await shop.app.schedules.parts.store()
    broken = [
        ScheduleRecord(key="no plugin", origin="runtime", trigger={"use": "tides"}, next=0),
        ScheduleRecord(key="no message", origin="runtime", trigger={"use": "every", "seconds": 1}, next=0),
    ]
    await store.put(broken)
    shop.app.schedule("pulse", shop.report.s(), every(minutes=1))
    scheduler = shop.scheduler()
    for count in range(3):
        assert await scheduler.run_due() == (1 if count else 0)
        shop.clock.advance(60)
    assert shop.ticks == ["12:01", "12:02"]
    for key in ("no plugin", "no message"):
        assert caplog.text.count(f"schedule {key} cannot fire") == 1
    assert "tides" in caplog.text


async def test_a_schedule_that_is_mended_says_so(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    store = await shop.app.schedules.parts.store()
    await store.put([ScheduleRecord(key="k", origin="runtime", trigger={"use": "tides"}, next=0)])
    scheduler = shop.scheduler()
    await scheduler.run_due()
    await shop.app.schedules.add("k", shop.report, every(minutes=1))
    shop.clock.advance(60)
    with caplog.at_level(logging.INFO, "camora"):
        assert await scheduler.run_due() == 1
    assert "schedule k fires again" in caplog.text


# Beside each other


async def test_of_many_schedulers_one_fires_each_tick(shop: Shop) -> None:
    for number in range(20):
        shop.app.schedule(f"pulse-{number}", shop.report.s(), every(minutes=1))
    schedulers = [shop.scheduler() for _ in range(5)]
    await asyncio.gather(*(one.run_due() for one in schedulers))
    for round_ in range(1, 11):
        shop.clock.advance(60)
        sent = await asyncio.gather(*(one.run_due() for one in schedulers))
        assert sum(sent) == 20
        assert len(shop.desk.sent) == await shop.queued() == 20 * round_


# Running on its own


async def test_a_running_scheduler_hears_of_changes_and_of_the_clock(shop: Shop) -> None:
    shop.app.schedule("yearly", shop.report.s("yearly"), cron("0 0 1 1 *"))
    scheduler = shop.scheduler()
    await scheduler.start()
    store = await shop.app.schedules.parts.store()
    await shop.app.schedules.add("soon", shop.report.s("soon"), every(minutes=10))
    shop.clock.advance(600)
    while not shop.messages:  # the clock tells it, and nothing else does within this test
        await store.changed(0.01)
    await shop.app.schedules.add("sooner", shop.report.s("sooner"), every(minutes=1))
    shop.clock.advance(60)
    while len(shop.messages) < 2:
        await store.changed(0.01)
    await scheduler.close()
    assert [message.kwargs["name"] for message in shop.messages] == ["soon", "sooner"]
    assert scheduler.fired == 2
    shop.clock.advance(3600)
    assert await shop.queued() == 2


async def test_a_running_scheduler_outlives_a_broker_that_is_away(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.app.schedule("pulse", shop.report.s(), every(minutes=1))
    caplog.set_level(logging.INFO, "camora")
    scheduler = shop.scheduler()
    await scheduler.start()
    shop.desk.before += [BrokerUnavailable("away") for _ in range(2)]
    store = await shop.app.schedules.parts.store()
    while not shop.messages:
        shop.clock.advance(6)
        await store.changed(0.01)
    while "the scheduler goes on" not in caplog.text:
        await store.changed(0.01)
    await scheduler.close()
    assert caplog.text.count("is away, trying again") == 1
    assert len({message.id for message in shop.messages}) == len(shop.messages)
    assert shop.ticks[0] == "12:01"
