"""A database that only reads: a dispatch says so, and that nothing was enqueued."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from camora import AppSettings, Camora
from camora.errors import BrokerUnavailable, DispatchUncertain

from tests.servers.fixtures import private_postgres
from tests.servers.mariadb import MariadbServer, private_mariadb
from tests.servers.postgres import PostgresServer

__all__ = ["private_mariadb", "private_postgres"]


SETTINGS = AppSettings(dispatch_timeout=2)


async def refused(dispatch: Callable[[], Awaitable[object]]) -> None:
    """It is said why, and that nothing was enqueued; unless the time ended in the middle of a try."""
    while True:
        try:
            with pytest.raises(BrokerUnavailable, match="it only reads"):
                await dispatch()
        except DispatchUncertain:
            continue
        return


async def check(url: str, close: Callable[[], object]) -> None:
    """Dispatch before and after the database is closed to those who write."""
    app = Camora(url, settings=SETTINGS)

    @app.task(name="ship")
    async def ship() -> None: ...

    async with app:
        await ship.dispatch()
        close()
        await refused(ship.dispatch)
        await refused(lambda: app.dispatch_many([ship.s(), ship.s()]))
    fresh = Camora(f"{url}?prefix=other_", settings=SETTINGS)
    with pytest.raises(BrokerUnavailable, match="it only reads"):
        await fresh.broker.open()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_postgresql(private_postgres: Callable[..., PostgresServer], driver: str) -> None:
    server = private_postgres()

    def close() -> None:
        server.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        server.sql("SELECT pg_reload_conf()")
        while server.sql("SHOW default_transaction_read_only") != [("on",)]:
            pass

    await check(server.url.replace("postgresql", f"postgresql+{driver}"), close)


async def test_a_mariadb(private_mariadb: Callable[..., MariadbServer]) -> None:
    server = private_mariadb()
    server.sql("CREATE USER shop@'%' IDENTIFIED BY 'secret'")
    server.sql("GRANT ALL ON camora.* TO shop@'%'")
    await check(server.url_of(user="shop:secret"), lambda: server.sql("SET GLOBAL read_only = 1"))
