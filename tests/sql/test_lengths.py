"""An id or a key that is too long is told at once, by its name, and by every database in the same words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from camora.errors import EncodeError
from camora_sql.broker import SqlBroker
from camora_sql.lengths import LONGEST_ID, LONGEST_KEY
from camora_sql.schema import Tables
from msgspec.structs import replace
from sqlalchemy import create_engine, make_url

from tests.servers import mariadb
from tests.servers.fixtures import fresh_postgres_url
from tests.sql.processes import message

FITS = [
    message("i" * LONGEST_ID),
    message("\N{PILE OF POO}" * LONGEST_ID),
    replace(message("keyed"), key="k" * LONGEST_KEY),
    replace(message("funny"), key="\N{PILE OF POO}" * LONGEST_KEY),
]
# Spaces at the end are what servers cut off without a word.
WRONG = {
    "id": (message("i" * 300), r"job_id 'i{40}'… has 300 characters, and at most 255 .*nothing was enqueued"),
    "id and a space": (message("i" * 255 + " "), "job_id .* has 256 characters"),
    "key": (replace(message("k"), key="k" * 600), r"key 'k{40}'… has 600 characters, and at most 512 "),
    "key and a space": (replace(message("k"), key="k" * 512 + " "), "key .* has 513 characters"),
}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of no tables yet."""
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/camora.db"
        case "postgresql":
            return fresh_postgres_url()
        case _:
            return mariadb.fresh_url()


@pytest.fixture
async def broker(url: str) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(url)
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_too_long_is_named(broker: SqlBroker, url: str, wrong: str) -> None:
    bad, told = WRONG[wrong]
    with pytest.raises(EncodeError, match=told) as error:
        await broker.publish([message("good"), bad])
    assert error.value.path == ("key" if wrong.startswith("key") else "job_id")
    drivers: dict[str, str] = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}
    bare = make_url(url).set(query={})
    engine = create_engine(bare.set(drivername=drivers[bare.get_backend_name()]))
    with engine.begin() as connection, pytest.raises(EncodeError, match=told):
        await broker.publish_within(connection, [message("good"), bad])
    engine.dispose()
    assert await broker.queues.counts() == {}


async def test_what_just_fits_is_known_again(broker: SqlBroker) -> None:
    names = [one.id for one in FITS]
    assert await broker.publish(FITS) == names
    assert (
        await broker.publish([replace(one, id=f"{place}") if one.key else one for place, one in enumerate(FITS)])
        == names
    )
    assert await broker.queues.counts() == {"work": {"ready": len(FITS)}}


def test_the_limits_are_those_of_the_columns() -> None:
    tables = Tables()
    columns: list[Any] = [tables.jobs.c.id, tables.done.c.id, tables.dead_letters.c.id, tables.results.c.id]
    assert {column.type.length for column in [*columns, tables.keys.c.job]} == {LONGEST_ID}
    assert tables.keys.c.key.type.length == LONGEST_KEY
