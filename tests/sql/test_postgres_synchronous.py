"""What waits for the disk, by `synchronous`: looked at in a server that writes by itself only after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement
from camora_sql.broker import SqlBroker

from tests.servers.fixtures import private_postgres
from tests.servers.postgres import PostgresServer

__all__ = ["private_postgres"]

NewServer = Callable[..., PostgresServer]


def message(job_id: str) -> Envelope:
    return Envelope(id=job_id, task="a.task", queue="work", body=b"{}")


@pytest.mark.parametrize(
    ("synchronous", "waits"),
    [
        ("full", {"publish": True, "claim": False, "extend": False, "settle": True}),
        ("all", {"publish": True, "claim": True, "extend": True, "settle": True}),
        ("normal", {"publish": False, "claim": False, "extend": False, "settle": False}),
    ],
)
async def test_what_waits_for_the_disk(private_postgres: NewServer, synchronous: str, waits: dict[str, bool]) -> None:
    server = private_postgres(settings=["wal_writer_delay = 10s", "autovacuum = off"])
    broker = SqlBroker(f"{server.url}?synchronous={synchronous}")
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=3600))
    leases = consumer.leases()
    seen: dict[str, bool] = {}

    def flushed(step: str) -> None:
        """Whether nothing is left to be written; then write it."""
        [(left,)] = server.sql("SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn()")
        seen[step] = left == 0
        server.sql("CHECKPOINT")

    server.sql("CHECKPOINT")
    await broker.publish([message("one")])
    flushed("publish")
    [delivery] = await consumer.receive(1, 0.0)
    flushed("claim")
    await asyncio.to_thread(leases.extend, [delivery])
    flushed("extend")
    assert list(await consumer.settle([Settlement(delivery=delivery, action=Action.ACK)])) == [True]
    flushed("settle")
    assert seen == waits
    await asyncio.to_thread(leases.close)
    await consumer.close()
    await broker.close()
