"""Who announces commits goes on, whatever becomes of his task."""

from __future__ import annotations

import asyncio

from camora_sql.broker import SqlBroker
from camora_sql.hub import Hub
from camora_sql.wakeup import Topic

from tests.servers.fixtures import fresh_postgres_url
from tests.sql.processes import PATIENCE


async def test_a_teller_that_was_cancelled_before_its_first_step_is_replaced() -> None:
    broker = SqlBroker(fresh_postgres_url())
    await broker.open()
    hub: Hub = broker._link._bridge._hub  # type: ignore[union-attr]
    hub.tell({Topic.JOBS})
    assert hub._teller is not None
    hub._teller.cancel()
    await asyncio.wait([hub._teller])
    assert hub._news == {Topic.JOBS}
    hub.tell({Topic.RESULTS})
    async with asyncio.timeout(PATIENCE):
        while hub._news:
            await asyncio.sleep(0.01)
    await broker.close()
