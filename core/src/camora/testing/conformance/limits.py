"""The exam of limits that hold across workers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest
import pytest_asyncio

from camora.interfaces.limits import Ask, Limit, Limits
from camora.testing.conformance.elsewhere import all_at_once, elsewhere

__all__ = ["LimitsConformance"]

_LONG = 600.0
_HOUR = 3600.0


def _slots(most: int = 1, name: str = "slots") -> Limit:
    return Limit(name=name, most=most)


def _rate(most: int = 1, per: float = _HOUR, name: str = "rate") -> Limit:
    return Limit(name=name, most=most, per=per)


@pytest.mark.asyncio
class LimitsConformance:
    """Override `limits_factory`."""

    lease: float = 0.5
    """Seconds of the leases that tests let lapse: as short as the store can do reliably."""
    window: float = 0.5
    """Seconds of the rates whose windows tests wait for."""
    patience: float = 20.0
    """Seconds after which what has not become free is taken for never free."""

    @pytest.fixture
    def limits_factory(self) -> Callable[[], Limits]:
        """Makes unopened limits on an empty store of their own, each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture limits_factory")

    @pytest_asyncio.fixture
    async def limits(self, limits_factory: Callable[[], Limits]) -> AsyncIterator[Limits]:
        """The limits under test, open."""
        made = limits_factory()
        await made.open()
        try:
            yield made
        finally:
            await made.close()

    async def _ask(self, limits: Limits, holder: str, *wanted: Limit, lease: float = _LONG) -> float:
        [answer] = await limits.take([Ask(holder=holder, limits=wanted)], lease=lease)
        return answer

    async def _until_granted(self, limits: Limits, holder: str, *wanted: Limit, lease: float = _LONG) -> None:
        """Ask, wait as long as the answer says, and ask again."""
        deadline = time.monotonic() + self.patience
        while wait := await self._ask(limits, holder, *wanted, lease=lease):
            assert wait > 0
            assert time.monotonic() < deadline, f"nothing was granted in {self.patience} s"
            await asyncio.sleep(wait)

    async def _used(self, limits: Limits, name: str) -> int:
        [use] = await limits.usage([name])
        assert use.name == name
        return use.used

    # Both

    async def test_what_nobody_used_is_unused(self, limits: Limits) -> None:
        assert list(await limits.take([], lease=1.0)) == []
        assert list(await limits.keep([], lease=1.0)) == []
        await limits.give_back([])
        assert list(await limits.usage([])) == []
        [use] = await limits.usage(["never"])
        assert (use.name, use.used, use.holders) == ("never", 0, ())

    async def test_an_ask_without_limits_is_granted(self, limits: Limits) -> None:
        assert await self._ask(limits, "one") == 0.0

    async def test_asks_are_granted_in_order(self, limits: Limits) -> None:
        asks = [Ask(holder=f"h{number}", limits=(_slots(2), _rate(100))) for number in range(5)]
        answers = await limits.take(asks, lease=_LONG)
        assert [answer == 0.0 for answer in answers] == [True, True, False, False, False]
        assert await self._used(limits, "rate") == 2
        [use] = await limits.usage(["slots"])
        assert sorted(use.holders) == ["h0", "h1"]

    async def test_all_limits_or_none(self, limits: Limits) -> None:
        assert await self._ask(limits, "one", _slots()) == 0.0
        assert await self._ask(limits, "two", _rate(), _slots()) > 0
        assert await self._used(limits, "rate") == 0, "a refused ask was charged"
        assert await self._ask(limits, "two", _rate()) == 0.0
        assert await self._ask(limits, "three", _slots(name="free"), _rate()) > 0
        assert await self._used(limits, "free") == 0, "a refused ask holds a slot"

    async def test_one_refused_does_not_refuse_those_behind_it(self, limits: Limits) -> None:
        assert await self._ask(limits, "one", _slots()) == 0.0
        asks = [Ask(holder="two", limits=(_slots(),)), Ask(holder="three", limits=(_slots(name="other"),))]
        first, second = await limits.take(asks, lease=_LONG)
        assert first > 0
        assert second == 0.0

    async def test_names_are_told_apart_exactly(self, limits: Limits) -> None:
        names = ["a", "A", "ä", "a%", "a_", "a'b", "slots:shop.tasks:send:1 2", "x" * 240]
        for name in names:
            assert await self._ask(limits, f"holder of {name}"[:200], _slots(name=name)) == 0.0
        for use in await limits.usage(names):
            assert use.used == 1
        for name in names:
            assert await self._ask(limits, "another", _slots(name=name)) > 0

    async def test_hundreds_at_once(self, limits: Limits) -> None:
        asks = [
            Ask(holder=f"h{number:03}", limits=(_slots(300), _slots(1, f"of {number}"), _rate(350)))
            for number in range(400)
        ]
        answers = await limits.take(asks, lease=_LONG)
        assert [answer == 0.0 for answer in answers] == [True] * 300 + [False] * 100
        assert await self._used(limits, "rate") == 300
        holders = [ask.holder for ask in asks]
        assert list(await limits.keep(holders, lease=_LONG)) == [True] * 300 + [False] * 100
        await limits.give_back(holders)
        assert await self._used(limits, "slots") == 0

    # Rates

    async def test_a_rate_is_granted_as_often_as_it_says(self, limits: Limits) -> None:
        for number in range(3):
            assert await self._ask(limits, f"h{number}", _rate(3, 60.0)) == 0.0
        wait = await self._ask(limits, "h3", _rate(3, 60.0))
        assert 50 < wait <= 61, "the wait is until the window has room"
        assert await self._used(limits, "rate") == 3

    async def test_asking_in_vain_costs_nothing(self, limits: Limits) -> None:
        assert await self._ask(limits, "h", _rate(1, 60.0)) == 0.0
        waits = [await self._ask(limits, "h", _rate(1, 60.0)) for _ in range(5)]
        assert max(waits) <= waits[0]
        assert await self._used(limits, "rate") == 1

    async def test_a_start_is_not_given_back(self, limits: Limits) -> None:
        assert await self._ask(limits, "h", _rate()) == 0.0
        await limits.give_back(["h"])
        assert await self._ask(limits, "h", _rate()) > 0

    async def test_no_window_has_more_than_it_may_and_each_gets_room_again(self, limits: Limits) -> None:
        rate = _rate(5, self.window)
        before: list[float] = []
        after: list[float] = []
        # Each grant lies somewhere between two looks at the clock.
        for number in range(14):
            deadline = time.monotonic() + self.patience
            begin = time.monotonic()
            while wait := await self._ask(limits, f"h{number}", rate):
                assert time.monotonic() < deadline, f"the window got no room in {self.patience} s"
                await asyncio.sleep(wait)
                begin = time.monotonic()
            before.append(begin)
            after.append(time.monotonic())
        for first, sixth in zip(before, after[5:], strict=False):
            # The widest that six can lie apart; a millisecond or two, because clocks are cut to those.
            assert sixth - first > self.window - 0.002, "six grants lie in one window of five"

    async def test_a_rate_of_many_stays_small_and_exact(self, limits: Limits) -> None:
        rate = _rate(1000, _HOUR)
        asks = [Ask(holder=f"h{number}", limits=(rate,)) for number in range(250)]
        for _ in range(4):
            assert not any(await limits.take(asks, lease=_LONG))
        assert await self._used(limits, "rate") == 1000
        assert await self._ask(limits, "h", rate) > 0

    # Slots

    async def test_no_more_hold_than_may(self, limits: Limits) -> None:
        assert await self._ask(limits, "one", _slots(2)) == 0.0
        assert await self._ask(limits, "two", _slots(2)) == 0.0
        assert 0 < await self._ask(limits, "three", _slots(2)) <= 1.0
        [use] = await limits.usage(["slots"])
        assert (use.used, sorted(use.holders)) == (2, ["one", "two"])

    async def test_what_is_given_back_is_free(self, limits: Limits) -> None:
        assert await self._ask(limits, "one", _slots(), _slots(name="second")) == 0.0
        await limits.give_back(["one", "never"])
        await limits.give_back(["one"])
        assert list(await limits.keep(["one"], lease=_LONG)) == [False]
        assert await self._ask(limits, "two", _slots(), _slots(name="second")) == 0.0

    async def test_nobody_gives_back_what_another_one_holds(self, limits: Limits) -> None:
        assert await self._ask(limits, "one", _slots()) == 0.0
        await limits.give_back(["two", "on", "one "])
        assert await self._ask(limits, "two", _slots()) > 0

    async def test_a_holder_that_asks_again_is_counted_once(self, limits: Limits) -> None:
        for _ in range(3):
            assert await self._ask(limits, "one", _slots(2)) == 0.0
        assert await self._ask(limits, "two", _slots(2)) == 0.0
        assert await self._used(limits, "slots") == 2
        assert await self._ask(limits, "one", _slots(2)) == 0.0

    async def test_another_number_holds_from_then_on(self, limits: Limits) -> None:
        for number in range(3):
            assert await self._ask(limits, f"h{number}", _slots(3)) == 0.0
        assert await self._ask(limits, "next", _slots(2)) > 0
        await limits.give_back(["h0"])
        assert await self._ask(limits, "next", _slots(2)) > 0
        await limits.give_back(["h1"])
        assert await self._ask(limits, "next", _slots(2)) == 0.0
        assert await self._ask(limits, "more", _slots(3)) == 0.0

    # Leases

    async def test_the_slots_of_the_dead_lapse(self, limits: Limits) -> None:
        assert await self._ask(limits, "dead", _slots(), _slots(name="second"), lease=self.lease) == 0.0
        assert await self._ask(limits, "next", _slots()) > 0
        await self._until_granted(limits, "next", _slots(), _slots(name="second"))
        assert list(await limits.keep(["dead", "next"], lease=_LONG)) == [False, True]
        [use] = await limits.usage(["slots"])
        assert use.holders == ("next",)

    async def test_a_slot_does_not_lapse_before_its_time(self, limits: Limits) -> None:
        begin = time.monotonic()
        assert await self._ask(limits, "one", _slots(), lease=self.lease) == 0.0
        await self._until_granted(limits, "two", _slots())
        assert time.monotonic() - begin >= self.lease - 0.002

    async def test_what_is_kept_does_not_lapse(self, limits: Limits) -> None:
        assert await self._ask(limits, "kept", _slots(), lease=self.lease) == 0.0
        assert await self._ask(limits, "witness", _slots(name="other"), lease=self.lease) == 0.0
        assert list(await limits.keep(["kept"], lease=_LONG)) == [True]
        await self._until_granted(limits, "next", _slots(name="other"))
        assert await self._ask(limits, "next", _slots()) > 0
        assert list(await limits.keep(["kept", "witness", "never"], lease=_LONG)) == [True, False, False]

    async def test_what_has_lapsed_is_not_revived(self, limits: Limits) -> None:
        assert await self._ask(limits, "dead", _slots(), lease=self.lease) == 0.0
        await self._until_granted(limits, "next", _slots())
        assert list(await limits.keep(["dead"], lease=_LONG)) == [False]
        await limits.give_back(["dead"])
        [use] = await limits.usage(["slots"])
        assert use.holders == ("next",)

    # Several

    async def test_of_many_who_ask_at_once_no_more_hold_than_may(self, limits: Limits) -> None:
        lock = threading.Lock()
        inside: list[str] = []
        most: list[int] = []

        def working(worker: int) -> Callable[[], Coroutine[Any, Any, None]]:
            async def work() -> None:
                twin = limits.twin()
                await twin.open()
                try:
                    for number in range(15):
                        holder = f"{worker}-{number}"
                        while await self._ask(twin, holder, _slots(2)):
                            await asyncio.sleep(0)
                        with lock:
                            inside.append(holder)
                            most.append(len(inside))
                        await asyncio.sleep(0)
                        with lock:
                            inside.remove(holder)
                        await twin.give_back([holder])
                finally:
                    await twin.close()

            return work

        await all_at_once(*[working(worker) for worker in range(4)])
        assert len(most) == 60
        assert max(most) <= 2
        assert await self._used(limits, "slots") == 0

    async def test_of_many_who_ask_at_once_no_more_start_than_may(self, limits: Limits) -> None:
        async def take() -> Sequence[float]:
            twin = limits.twin()
            await twin.open()
            try:
                return [await self._ask(twin, "anybody", _rate(50)) for _ in range(20)]
            finally:
                await twin.close()

        answers = await all_at_once(take, take, take, take)
        assert sum(answer == 0.0 for taken in answers for answer in taken) == 50

    async def test_a_twin_counts_in_the_same_store(self, limits: Limits) -> None:
        assert await self._ask(limits, "one", _slots(), _rate(2)) == 0.0

        async def look() -> tuple[float, bool]:
            twin = limits.twin()
            await twin.open()
            try:
                [kept] = await twin.keep(["one"], lease=_LONG)
                return await self._ask(twin, "two", _slots(), _rate(2)), kept
            finally:
                await twin.close()

        wait, kept = await elsewhere(look)
        assert wait > 0
        assert kept

    async def test_slots_outlive_their_maker_s_connection(self, limits: Limits) -> None:
        twin = limits.twin()
        await twin.open()
        assert await self._ask(twin, "one", _slots()) == 0.0
        await twin.close()
        await twin.close()
        assert await self._ask(limits, "two", _slots()) > 0
