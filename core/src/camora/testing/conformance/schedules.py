"""The exam of a schedule store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from camora.errors import ConfigurationError
from camora.interfaces.schedule import Fire, ScheduleRecord, ScheduleStore
from camora.testing.conformance.elsewhere import all_at_once, elsewhere

__all__ = ["ScheduleStoreConformance"]

NOW = 1_700_000_000_000
LEASE = 5.0
MINUTE = 60_000


def record(key: str, **changes: Any) -> ScheduleRecord:
    """A schedule that is due at `NOW`."""
    changes.setdefault("trigger", {"use": "every", "seconds": 60})
    changes.setdefault("next", NOW)
    changes.setdefault("app", "shop")
    return ScheduleRecord(key=key, task="a.task", queue="work", message=b"{}", **changes)


async def one(store: ScheduleStore, key: str) -> ScheduleRecord:
    """The record of this key, which there is."""
    [found] = await store.get([key])
    assert found is not None
    return found


async def claim(store: ScheduleStore, now: int = NOW, **more: Any) -> list[Fire]:
    """What one scheduler gets."""
    return list(await store.claim(now, **{"holder": "one", "lease": LEASE, **more}))


async def keys(store: ScheduleStore, now: int = NOW, **more: Any) -> list[str]:
    """The keys of it, in order."""
    return [fire.record.key for fire in await claim(store, now, **more)]


@pytest.mark.asyncio
class ScheduleStoreConformance:
    """Override `schedules_factory`."""

    patience: float = 20.0
    """Seconds after which a change that was not noticed is taken for missed."""
    prompt: float = 2.0
    """Seconds within which one who waits notices a change."""

    @pytest.fixture
    def schedules_factory(self) -> Callable[[], ScheduleStore]:
        """Makes an unopened store without schedules, on data of its own, each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture schedules_factory")

    @pytest_asyncio.fixture
    async def store(self, schedules_factory: Callable[[], ScheduleStore]) -> AsyncIterator[ScheduleStore]:
        """The store under test, open."""
        store = schedules_factory()
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    # Keeping

    async def test_an_empty_store_answers(self, store: ScheduleStore) -> None:
        assert list(await store.list()) == []
        assert list(await store.get(["never-was"])) == [None]
        assert list(await store.get([])) == []
        assert await store.next_due() is None
        assert await claim(store) == []
        assert await store.remove(["never-was"]) == 0
        assert await store.pause(["never-was"]) == 0
        await store.put([])
        assert await store.remove([]) == 0
        assert await store.pause([]) == 0

    async def test_a_record_is_kept_whole(self, store: ScheduleStore) -> None:
        given = ScheduleRecord(
            key="nächtlich:1",
            group="jp",
            trigger={
                "use": "calendar",
                "minutes": [0, 30],
                "seconds": 0.5,
                "nested": {"tz": "Asia/Tōkyō"},
                "none": None,
            },
            task="module:täsk",
            queue="q",
            message=bytes(range(256)),
            origin="config",
            app="shop",
            catch_up="all",
            overlap="skip",
            next=NOW + 1,
        )
        await store.put([given])
        [found] = await store.list()
        assert msgspec.structs.replace(found, version=given.version) == given

    async def test_what_is_put_first_may_be_paused_and_without_end_or_past(self, store: ScheduleStore) -> None:
        await store.put([record("a", paused=True, next=None), record("b", last=NOW - 1, last_job="j", next=NOW)])
        a, b = await store.list()
        assert (a.paused, a.next) == (True, None)
        assert (b.last, b.last_job, b.next) == (NOW - 1, "j", NOW)

    async def test_moments_beyond_32_bits_and_before_1970_are_kept(self, store: ScheduleStore) -> None:
        far = 253_402_300_799_999
        await store.put([record("far", next=far), record("old", next=-1)])
        assert (await one(store, "far")).next == far
        assert (await one(store, "old")).next == -1
        assert await store.next_due() == -1
        assert await keys(store) == ["old"]

    async def test_the_list_is_in_order_of_key(self, store: ScheduleStore) -> None:
        names = ["b", "a10", "a2", "Z", "ä", "_", "a"]
        await store.put([record(key) for key in names])
        assert [found.key for found in await store.list()] == sorted(names)
        assert [found and found.key for found in await store.get(["b", "never-was", "a"])] == ["b", None, "a"]

    async def test_groups_are_told_apart(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b", group="jp"), record("c", group="jp2", next=NOW - 1)])
        assert [found.key for found in await store.list("jp")] == ["b"]
        assert list(await store.list("never-was")) == []
        assert await store.next_due(["jp"]) == NOW
        assert await store.next_due(["jp", "jp2"]) == NOW - 1
        assert await store.next_due(["never-was"]) is None
        assert await keys(store, groups=["never-was"]) == []
        assert await keys(store, groups=["jp"]) == ["b"]
        assert await keys(store, groups=["default", "jp2"]) == ["c", "a"]

    # Replacing

    async def test_putting_again_keeps_what_happened(self, store: ScheduleStore) -> None:
        await store.put([record("a")])
        [fire] = await claim(store)
        assert await store.advance(fire, last=NOW, next_tick=NOW + MINUTE, job_id="job")
        await store.pause(["a"])
        await store.put([msgspec.structs.replace(record("a"), message=b"[]")])
        found = await one(store, "a")
        assert (found.last, found.last_job, found.next, found.paused) == (NOW, "job", NOW + MINUTE, True)
        assert found.message == b"[]"

    async def test_another_trigger_brings_another_tick(self, store: ScheduleStore) -> None:
        await store.put([record("a", last=5, last_job="j")])
        await store.put([record("a", trigger={"use": "every", "seconds": 7}, next=NOW + 7)])
        found = await one(store, "a")
        assert (found.next, found.last, found.last_job) == (NOW + 7, 5, "j")
        assert found.trigger == {"use": "every", "seconds": 7}

    async def test_a_record_that_changes_nothing_is_not_written(self, store: ScheduleStore) -> None:
        await store.put([record("a")])
        before = await one(store, "a")
        await store.put([record("a", next=NOW + 999)])
        assert await one(store, "a") == before
        await store.put([record("a", catch_up="all")])
        assert (await one(store, "a")).version > before.version

    async def test_every_change_counts_the_version_up(self, store: ScheduleStore) -> None:
        seen = []
        await store.put([record("a")])
        seen.append((await one(store, "a")).version)
        await store.put([record("a", group="other")])
        seen.append((await one(store, "a")).version)
        await store.pause(["a"])
        seen.append((await one(store, "a")).version)
        await store.pause(["a"], paused=False)
        seen.append((await one(store, "a")).version)
        [fire] = await claim(store)
        await store.advance(fire, last=NOW, next_tick=NOW + 1, job_id="j")
        seen.append((await one(store, "a")).version)
        assert seen == sorted(set(seen))

    @pytest.mark.parametrize(("there", "comes"), [("runtime", "code"), ("runtime", "config"), ("code", "runtime")])
    async def test_what_was_added_at_run_time_and_what_was_declared_do_not_replace_each_other(
        self, store: ScheduleStore, there: str, comes: str
    ) -> None:
        await store.put([record("taken", origin=there)])
        with pytest.raises(ConfigurationError) as caught:
            await store.put([record("fresh", origin=comes), record("taken", origin=comes, catch_up="all")])
        assert "'taken'" in str(caught.value)
        assert repr(there) in str(caught.value)
        # None of that batch was put.
        [found] = await store.list()
        assert (found.key, found.origin, found.catch_up) == ("taken", there, "one")

    async def test_one_app_does_not_replace_what_another_one_declares(self, store: ScheduleStore) -> None:
        await store.put([record("taken", app="shop")])
        with pytest.raises(ConfigurationError, match="shop"):
            await store.put([record("taken", app="bank")])
        assert (await one(store, "taken")).app == "shop"

    async def test_code_and_settings_may_replace_each_other_and_so_may_run_time_schedules_of_all_apps(
        self, store: ScheduleStore
    ) -> None:
        await store.put([record("a", origin="code"), record("r", origin="runtime", app="shop")])
        await store.put([record("a", origin="config"), record("r", origin="runtime", app="bank", catch_up="none")])
        assert (await one(store, "a")).origin == "config"
        assert (await one(store, "r")).catch_up == "none"

    async def test_removing_removes_for_good(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b")])
        assert await store.remove(["a", "never-was"]) == 1
        assert await store.remove(["a"]) == 0
        assert await keys(store) == ["b"]
        await store.put([record("a", origin="runtime")])
        assert (await one(store, "a")).origin == "runtime"

    # Pausing

    async def test_what_is_paused_is_not_lent_and_not_waited_for(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b", next=NOW + MINUTE)])
        assert await store.pause(["a", "never-was"]) == 1
        assert (await one(store, "a")).paused
        assert await claim(store) == []
        assert await store.next_due() == NOW + MINUTE
        assert await store.pause(["a"], paused=False) == 1
        assert await keys(store) == ["a"]

    async def test_resuming_may_leave_out_what_was_missed(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b")])
        await store.pause(["a", "b"])
        assert await store.pause(["a", "b"], paused=False, next_ticks=[NOW + 5, None]) == 2
        a, b = await store.list()
        assert (a.next, b.next) == (NOW + 5, None)
        assert await claim(store) == []
        assert await keys(store, NOW + 5) == ["a"]

    async def test_the_next_tick_can_be_set_without_touching_the_pause(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b")])
        await store.pause(["a"])
        assert await store.pause(["a", "b"], paused=None, next_ticks=[NOW + 1, NOW + 2]) == 2
        a, b = await store.list()
        assert (a.paused, a.next, b.paused, b.next) == (True, NOW + 1, False, NOW + 2)

    # Lending

    async def test_what_is_due_is_lent_the_oldest_first(self, store: ScheduleStore) -> None:
        await store.put([record("c", next=NOW - 3), record("a", next=NOW), record("b", next=NOW - 9)])
        await store.put([record("later", next=NOW + 1), record("never", next=None)])
        assert await keys(store, limit=2) == ["b", "c"]
        assert await keys(store) == ["a"]
        assert await keys(store) == []
        assert await keys(store, NOW + 1) == ["later"]

    async def test_a_loan_shows_the_record_as_it_is(self, store: ScheduleStore) -> None:
        await store.put([record("a")])
        [fire] = await claim(store)
        assert fire.record == await one(store, "a")

    async def test_of_many_claimers_one_gets_each(self, store: ScheduleStore) -> None:
        names = [f"key-{number:02}" for number in range(40)]
        await store.put([record(key) for key in names])

        async def take() -> list[str]:
            twin = store.twin()
            await twin.open()
            try:
                taken: list[str] = []
                while batch := await keys(twin, limit=3):
                    taken += batch
                return taken
            finally:
                await twin.close()

        taken = await all_at_once(*[take] * 4)
        assert sorted(key for batch in taken for key in batch) == names

    async def test_a_loan_comes_back_when_its_lease_is_over_and_not_before(self, store: ScheduleStore) -> None:
        await store.put([record("a")])
        [first] = await claim(store)
        end = NOW + round(LEASE * 1000)
        assert await claim(store, end - 1) == []
        [second] = await claim(store, end)
        assert second.receipt != first.receipt

    async def test_a_loan_that_was_lent_anew_cannot_be_advanced(self, store: ScheduleStore) -> None:
        await store.put([record("a")])
        [first] = await claim(store)
        [second] = await claim(store, NOW + 6000, holder="two")
        assert not await store.advance(first, last=NOW, next_tick=NOW + MINUTE, job_id="late")
        assert (await one(store, "a")).next == NOW
        assert await store.advance(second, last=NOW, next_tick=NOW + MINUTE, job_id="job")
        assert not await store.advance(first, last=NOW, next_tick=NOW, job_id="late")
        assert not await store.advance(second, last=NOW, next_tick=NOW, job_id="again")
        found = await one(store, "a")
        assert (found.last, found.last_job, found.next) == (NOW, "job", NOW + MINUTE)

    async def test_a_lapsed_loan_that_nobody_took_still_counts(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b", next=NOW + 3_600_000)])
        [fire] = await claim(store)
        assert await keys(store, NOW + 3_600_000, groups=["never-was"]) == []
        assert await store.advance(fire, last=NOW, next_tick=NOW + MINUTE, job_id="job")
        assert (await one(store, "a")).next == NOW + MINUTE

    async def test_after_the_clock_was_set_back_a_loan_does_not_last_for_ever(self, store: ScheduleStore) -> None:
        hour = 3_600_000
        await store.put([record("a", next=NOW - hour)])
        assert await keys(store, NOW) == ["a"]
        assert await keys(store, NOW - 50_000) == [], "two machines' clocks may differ a little"
        assert await keys(store, NOW - hour) == ["a"]

    async def test_advancing_may_move_on_without_a_fire(self, store: ScheduleStore) -> None:
        await store.put([record("a", last=7, last_job="j")])
        [fire] = await claim(store)
        assert await store.advance(fire, last=None, next_tick=NOW + MINUTE)
        found = await one(store, "a")
        assert (found.last, found.last_job, found.next) == (7, "j", NOW + MINUTE)
        assert await claim(store) == []
        assert await keys(store, NOW + MINUTE) == ["a"]

    async def test_a_schedule_ends_with_its_last_tick(self, store: ScheduleStore) -> None:
        await store.put([record("a")])
        [fire] = await claim(store)
        assert await store.advance(fire, last=NOW, next_tick=None, job_id="j")
        assert await store.next_due() is None
        assert await claim(store, NOW + 10**12) == []
        assert (await one(store, "a")).last == NOW

    async def test_what_changes_the_tick_or_removes_ends_the_loan(self, store: ScheduleStore) -> None:
        await store.put([record(key) for key in ("removed", "replanned", "resumed")])
        fires = await claim(store)
        assert len(fires) == 3
        await store.remove(["removed"])
        await store.put([record("replanned", trigger={"use": "every", "seconds": 7}, next=NOW + 7)])
        await store.pause(["resumed"], paused=False, next_ticks=[NOW + 8])
        for fire in fires:
            assert not await store.advance(fire, last=NOW, next_tick=NOW + MINUTE, job_id="late")
        assert [(found.key, found.next, found.last) for found in await store.list()] == [
            ("replanned", NOW + 7, None),
            ("resumed", NOW + 8, None),
        ]

    async def test_what_was_removed_during_a_fire_and_put_again_is_not_advanced_by_it(
        self, store: ScheduleStore
    ) -> None:
        await store.put([record("a")])
        [fire] = await claim(store)
        await store.remove(["a"])
        await store.put([record("a", next=NOW + 3)])
        assert not await store.advance(fire, last=NOW, next_tick=NOW + MINUTE, job_id="late")
        assert (await one(store, "a")).next == NOW + 3
        assert await keys(store, NOW + 3) == ["a"]

    async def test_a_pause_or_another_message_leaves_the_loan_and_is_left_by_it(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b")])
        a, b = await claim(store)
        await store.pause(["a"])
        await store.put([msgspec.structs.replace(record("b"), message=b"new")])
        for fire in (a, b):
            assert await store.advance(fire, last=NOW, next_tick=NOW + MINUTE, job_id="j")
        first, second = await store.list()
        assert (first.paused, first.next) == (True, NOW + MINUTE)
        assert (second.message, second.next) == (b"new", NOW + MINUTE)

    async def test_what_is_lent_is_due_again_at_its_lease_s_end(self, store: ScheduleStore) -> None:
        await store.put([record("a"), record("b", next=NOW + MINUTE)])
        assert await store.next_due() == NOW
        [fire] = await claim(store)
        assert await store.next_due() == NOW + round(LEASE * 1000)
        assert await store.advance(fire, last=NOW, next_tick=NOW + 2 * MINUTE, job_id="j")
        assert await store.next_due() == NOW + MINUTE

    async def test_a_thousand_schedules_are_lent_in_batches(self, store: ScheduleStore) -> None:
        await store.put([record(f"{number:04}", next=NOW - number) for number in range(1000)])
        seen: list[str] = []
        while batch := await claim(store, limit=300):
            assert len(batch) <= 300
            seen += [fire.record.key for fire in batch]
        assert seen == [f"{number:04}" for number in reversed(range(1000))]

    # Waiting

    async def test_waiting_ends_with_its_timeout(self, store: ScheduleStore) -> None:
        await store.changed(0)
        async with asyncio.timeout(self.patience):
            await store.changed(0.05)

    @pytest.mark.parametrize("what", ["put", "remove", "pause", "resume"])
    async def test_a_change_made_elsewhere_ends_waiting(self, store: ScheduleStore, what: str) -> None:
        await store.put([record("a", paused=what == "resume")])

        async def change() -> float:
            twin = store.twin()
            await twin.open()
            try:
                if what == "put":
                    await twin.put([record("b")])
                elif what == "remove":
                    await twin.remove(["a"])
                else:
                    await twin.pause(["a"], paused=what == "pause")
                return time.monotonic()
            finally:
                await twin.close()

        # What this store itself has put may end the first call.
        await store.changed(0.05)
        waiting = asyncio.create_task(store.changed(self.patience))
        await asyncio.sleep(0)
        changed = await elsewhere(change)
        await waiting
        assert time.monotonic() - changed < self.prompt, "the change was noticed late"

    async def test_a_change_between_two_calls_is_not_slept_through(self, store: ScheduleStore) -> None:
        await store.changed(0.01)

        async def change() -> None:
            twin = store.twin()
            await twin.open()
            await twin.put([record("b")])
            await twin.close()

        await elsewhere(change)
        begin = time.monotonic()
        await store.changed(self.patience)
        assert time.monotonic() - begin < self.prompt, "the change was slept through"

    async def test_waiting_can_be_cancelled_and_begun_again(self, store: ScheduleStore) -> None:
        await store.changed(0.01)
        waiting = asyncio.create_task(store.changed(self.patience))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        again = asyncio.create_task(store.changed(self.patience))
        await asyncio.sleep(0)
        await store.put([record("a")])
        async with asyncio.timeout(self.prompt):
            await again

    # Life and end

    async def test_a_twin_sees_the_same_and_outlives_its_original(self, store: ScheduleStore) -> None:
        twin = store.twin()
        await twin.open()
        try:
            await store.put([record("a")])
            assert [found.key for found in await twin.list()] == ["a"]
            [fire] = await claim(store)
            assert await claim(twin) == []
            # A receipt is the store's, not the object's.
            assert await twin.advance(fire, last=NOW, next_tick=NOW + MINUTE, job_id="j")
            await store.close()
            await store.close()
            assert (await one(twin, "a")).last == NOW
        finally:
            await twin.close()
