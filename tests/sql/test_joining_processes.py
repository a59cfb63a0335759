"""Dispatching inside transactions whose processes are killed: order and job are both there, or neither."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from camora import Camora
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import Action, Settlement

from tests.sql.processes import Process, message, playing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")
    database.close()
    return path


def column(path: Path, query: str) -> list[str]:
    database = sqlite3.connect(path)
    try:
        return [row[0] for row in database.execute(query)]
    finally:
        database.close()


@pytest.mark.parametrize("kind", ["connection", "asynchronous session"])
async def test_killed_at_any_step_it_leaves_both_or_neither(tmp_path: Path, kind: str) -> None:
    with playing("order_and_die_at_each_step", 1, tmp_path, kind) as [process]:
        process.go()
        steps = process.hears()
    # Statements of the order, the look at the database, the lock, the batch with its key, and the commit.
    assert steps > 20
    left = []
    for at in range(1, steps + 1):
        path = tmp_path / f"at-{at}.db"
        orders = column(path, "SELECT item FROM orders ORDER BY id")
        jobs = column(path, "SELECT id FROM camora_jobs ORDER BY seq")
        keys = column(path, "SELECT key FROM camora_keys")
        assert (orders, jobs, keys) in ((["cup", "pot"], ["job-cup", "job-pot"], ["cup"]), ([], [], []))
        left.append(bool(orders))
        # Whatever became of it, it can be done again now.
        broker = Camora(f"sqlite:///{path}?synchronous=normal").broker
        await broker.open()
        assert await broker.publish([message("job-pot"), message("job-cup", key="cup")]) == ["job-pot", "job-cup"]
        assert await broker.queues.counts() == {"work": {"ready": 2}}
        await broker.close()
    # It was there after the commit, and never before.
    assert left == [False] * (steps - 1) + [True]


async def test_orders_and_jobs_agree_whoever_is_killed_while_workers_take_them(path: Path) -> None:
    url = f"sqlite:///{path}?synchronous=normal"
    broker = Camora(url).broker
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    said: list[str] = []
    done: list[str] = []
    for _ in range(2):
        processes = [Process("order_for_ever", f"sqlite:///{path}") for _ in range(2)]
        for process in processes:
            assert process.hears() == "ready"
            process.go()
        for _ in range(5):
            said += [process.hears() for process in processes]
            for delivery in await consumer.receive(50, 0.0):
                await consumer.settle([Settlement(delivery=delivery, action=Action.ACK)])
                done.append(delivery.id)
        for process in processes:
            process.kill()
            process.close()
    while deliveries := await consumer.receive(500, 0.0):
        await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries])
        done += [one.id for one in deliveries]
    orders = column(path, "SELECT item FROM orders")
    assert sorted(done) == sorted(orders)
    assert len(said) == 2 * 5 * 2
    assert set(said) <= set(orders)
    await consumer.close()
    await broker.close()
