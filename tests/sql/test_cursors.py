"""Where a claimer has got to: by itself, and on PostgreSQL, where claims begin there."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import psycopg
import pytest
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement
from camora_sql.broker import SqlBroker
from camora_sql.cursors import Cursors
from camora_sql.drivers.asyncpg import AsyncpgDriver
from camora_sql.drivers.errors import ServerError
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.fixtures import fresh_postgres_url, shared_postgres


def row(seq: int, priority: int, due: int, queue: str = "a") -> tuple[Any, ...]:
    return seq, priority, due, f"job-{seq}", queue


def covers(columns: list[list[Any]], priority: int, due: int, seq: int) -> int:
    """How many levels and gaps of queue "a" a message would be found in."""
    l_queues, l_priorities, l_dues, l_seqs, g_queues, g_above, g_below = columns
    levels = sum(
        of == "a" and level == priority and (due, seq) > (from_due, from_seq)
        for of, level, from_due, from_seq in zip(l_queues, l_priorities, l_dues, l_seqs, strict=True)
    )
    gaps = sum(
        of == "a" and above < priority < below for of, above, below in zip(g_queues, g_above, g_below, strict=True)
    )
    return levels + gaps


@given(
    taken=st.lists(st.tuples(st.integers(1, 99), st.integers(-2, 9), st.integers(1, 99)), min_size=1, max_size=20),
    priority=st.integers(-5, 12),
)
def test_what_comes_later_is_in_one_level_or_gap(taken: list[tuple[int, int, int]], priority: int) -> None:
    cursors = Cursors(["a", "b"], moment=lambda: 100, now=lambda: 0.0)
    cursors.advance([row(*one) for one in taken])
    assert covers(cursors.columns(), priority, 100, 100) == 1


def test_old_places_are_exact_and_new_ones_leave_room_for_stragglers() -> None:
    moment = 1_000_000
    cursors = Cursors(["a"], moment=lambda: moment, now=lambda: 0.0)
    cursors.advance([row(7, 0, moment - 60_000)])
    assert covers(cursors.columns(), 0, moment - 60_000, 7) == 0
    assert covers(cursors.columns(), 0, moment - 60_000, 8) == 1
    cursors.advance([row(9, 0, moment - 10)])
    assert covers(cursors.columns(), 0, moment - 60, 8) == 1
    assert covers(cursors.columns(), 0, moment - 500, 8) == 0


def test_everything_is_looked_at_first_and_again_after_a_while() -> None:
    clock = [0.0]
    cursors = Cursors(["a"], moment=lambda: 100, now=lambda: clock[0])
    assert not cursors.usable
    cursors.looked_at_everything(0.001)
    assert not cursors.usable  # nothing was found: there is no place to begin at
    cursors.advance([row(1, 0, 1)])
    assert cursors.usable
    clock[0] = 1.0
    assert not cursors.usable
    # A look that took long is not taken often.
    cursors.looked_at_everything(0.2)
    clock[0] = 10.9
    assert cursors.usable
    clock[0] = 11.1
    assert not cursors.usable


def test_levels_do_not_become_more_and_more() -> None:
    cursors = Cursors(["a"], moment=lambda: 100, now=lambda: 0.0)
    cursors.looked_at_everything(0.0)
    cursors.advance([row(number, number, 1) for number in range(100)])
    assert not cursors.usable


def message(job_id: str, priority: int = 0) -> Envelope:
    return Envelope(id=job_id, task="a.task", queue="work", body=b"{}", priority=priority)


async def test_what_is_committed_late_comes_back_or_is_urgent_is_found() -> None:
    url = fresh_postgres_url()
    broker = SqlBroker(url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w"))
    numbers = itertools.count()

    async def busy(wanted: str, seconds: float = 15.0) -> None:
        """Never idle: one comes for each that is taken; until this one is among them."""
        async with asyncio.timeout(seconds):
            while True:
                await broker.publish([message(f"more-{next(numbers)}") for _ in range(2)])
                taken = await consumer.receive(2, 0.0)
                assert len(taken) == 2
                await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in taken])
                if wanted in [one.id for one in taken]:
                    return

    await broker.publish([message("first"), message("back")])
    taken = await consumer.receive(2, 0.0)
    await broker.publish([message("second")])
    await consumer.settle([Settlement(delivery=taken[0], action=Action.ACK)])
    # Given back to its old place, which lies behind.
    await consumer.settle([Settlement(delivery=taken[1], action=Action.RELEASE, charged=False)])
    await busy("back")
    # Of a priority that was never seen: at once.
    await broker.publish([message("urgent", priority=5), message("lazy", priority=-3)])
    assert [one.id for one in await consumer.receive(1, 0.0)] == ["urgent"]
    # Stored long ago by a transaction that has only now committed.
    prefix = url.rpartition("prefix=")[2]
    with psycopg.connect(shared_postgres().url) as other:
        other.execute(
            f"INSERT INTO {prefix}jobs (id, queue, state, priority, due, task, body) "
            f"SELECT 'late', 'work', 0, 0, min(due) - 60000, 'a.task', '{{}}' FROM {prefix}jobs"
        )
    await busy("late")
    await consumer.close()
    await broker.close()


@pytest.mark.parametrize("queues", [("work",), ("work", "other", "none")])
async def test_the_order_is_that_of_urgency_however_it_is_claimed(queues: tuple[str, ...]) -> None:
    broker = SqlBroker(fresh_postgres_url())
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=queues, worker="w"))
    places = [(number % 3, queues[number % len(queues)]) for number in range(60)]
    for number, (priority, queue) in enumerate(places):
        await broker.publish([Envelope(id=f"{number:02}", task="t", queue=queue, body=b"", priority=priority)])
    taken = [one.id for _ in range(12) for one in await consumer.receive(5, 0.0)]
    assert taken == [f"{number:02}" for number in sorted(range(60), key=lambda number: (-places[number][0], number))]
    assert not await consumer.receive(5, 0.0)
    await consumer.close()
    await broker.close()


async def test_what_was_lent_with_an_answer_that_got_lost_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = SqlBroker(fresh_postgres_url())
    await broker.open()
    await broker.publish([message(f"job-{number}") for number in range(3)])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=3600))
    real, losses = AsyncpgDriver.rows, []

    def rows(self: AsyncpgDriver, text: str, values: Any = ()) -> Any:
        answer = real(self, text, values)
        if "claim" in text and not losses:
            losses.append(len(answer))
            self.abort()
            raise ServerError("the connection was reset", broken=True)
        return answer

    monkeypatch.setattr(AsyncpgDriver, "rows", rows)
    taken = await consumer.receive(10, 5.0)
    assert losses == [3]
    assert [(one.id, one.deliveries) for one in taken] == [(f"job-{number}", 1) for number in range(3)]
    assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in taken]))
    await consumer.close()
    await broker.close()
