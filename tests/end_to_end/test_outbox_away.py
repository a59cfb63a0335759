"""An outbox that is not there, and one whose address is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from camora import Camora
from camora.errors import ConfigurationError
from sqlalchemy import create_engine

from tests.servers.fixtures import fresh_postgres_url, private_postgres
from tests.servers.postgres import PostgresServer

__all__ = ["private_postgres"]


def app_of(broker: str, outbox: str) -> Camora:
    app = Camora(broker, outbox=outbox)

    @app.task(name="confirm")
    async def confirm(order: int) -> int:
        return order

    return app


async def test_a_worker_that_was_there_first_relays_once_the_outbox_is_there(
    private_postgres: Callable[..., PostgresServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_postgres()
    app = app_of(f"sqlite:///{tmp_path}/jobs.db", f"{server.url}?connect_timeout=1")
    assert app.outbox is not None
    tables = app.outbox.broker.twin()
    await tables.open()
    await tables.close()
    server.kill()
    async with app, app.worker():
        async with asyncio.timeout(30):
            while "the outbox waits" not in caplog.text:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            job = await app.tasks.get("confirm").options(connection=connection).dispatch(7)
        assert await job.result(timeout=60) == 7
        engine.dispose()
    assert "Traceback" not in caplog.text


async def test_a_mistake_in_its_address_is_told_before_a_worker_takes_anything() -> None:
    url = fresh_postgres_url()
    app = app_of("memory://", f"{url}{'&' if '?' in url else '?'}schema=not_there")
    async with app:
        job = await app.tasks.get("confirm").dispatch(1)
        with pytest.raises(ConfigurationError, match="not_there"):
            async with app.worker():
                pass
        assert await job.status() == "queued"
