"""Workflows and journals in tables: read by their indexes, deleted in steps, pruned by whoever is there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from camora.errors import BrokerUnavailable, EncodeError
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.workflows import START, Mark, Node, WorkflowRecord, WorkflowStore
from camora.testing.clock import VirtualClock
from camora_sql import workflows
from camora_sql.broker import SqlBroker
from camora_sql.dialects import sqlite
from camora_sql.numbering import MOST_NODES, index_of, number, workflow_of
from camora_sql.results import SqlResultBackend
from camora_sql.session import Session
from camora_sql.statements import Builder
from camora_sql.statements import workflows as statements
from camora_sql.store import Store

from tests.servers.fixtures import shared_postgres
from tests.sql.databases import new_database

TABLES = ("workflows", "workflow_nodes", "workflow_feeds", "workflow_waits", "workflow_gates")
JOURNALS = ("journals", "journal_entries")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "camora.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}?synchronous=normal"


def counts(path: Path, tables: Sequence[str] = TABLES) -> list[int]:
    """How many rows there are in each."""
    database = sqlite3.connect(path)
    try:
        return [database.execute(f"SELECT count(*) FROM camora_{table}").fetchone()[0] for table in tables]
    finally:
        database.close()


async def becomes(look: Callable[[], bool], meanwhile: Callable[[], Any] | None = None) -> None:
    """Wait for it."""
    async with asyncio.timeout(60):
        while not look():
            await (asyncio.sleep(0.01) if meanwhile is None else meanwhile())


async def group(store: WorkflowStore, workflow_id: str, size: int) -> None:
    """Members that all begin at the start, and a join of them, which runs."""
    assert await store.create(WorkflowRecord(id=workflow_id, created=1))
    for start in range(0, size, 1000):
        members = range(start, min(start + 1000, size))
        await store.add(workflow_id, [Node(index=index, spec=b"job", feeds=(size,), gate=START) for index in members])
    await store.add(workflow_id, [Node(index=size, spec=b"join")])
    assert await store.start(workflow_id, b"plan", 2)
    await store.passed(workflow_id, START, size - 1, 2)


def ends(workflow_id: str, indexes: Sequence[int]) -> list[Mark]:
    return [Mark(workflow=workflow_id, index=index, status="succeeded", outcome=b"42") for index in indexes]


async def end_all(store: WorkflowStore, workflow_id: str, size: int) -> None:
    """With its join."""
    for start in range(0, size, 500):
        await store.end(ends(workflow_id, range(start, min(start + 500, size))), 3)
    [marked] = await store.end(ends(workflow_id, [size]), 3)
    assert marked.open == 0


async def test_an_end_takes_as_many_statements_however_large_the_workflow(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: Counter[str] = Counter()

    def counted(run: Any) -> Any:
        def counting(connection: Any, text: str, values: Sequence[Any] = ()) -> Any:
            ran[text] += 1
            return run(connection, text, values)

        return counting

    driver = sqlite._Connection
    for name in ("rows", "change"):
        monkeypatch.setattr(driver, name, counted(getattr(driver, name)))

    async def counted_in(size: int, marks: Sequence[int]) -> int:
        workflow_id = f"{size}-{len(marks)}"
        await group(store, workflow_id, size)
        ran.clear()
        await store.end(ends(workflow_id, marks), 3)
        return ran.total()

    store = SqlBroker(url).own_workflows()
    await store.open()
    one = [await counted_in(size, [7]) for size in (10, 2000)]
    assert one[0] == one[1]
    assert one[0] <= 10
    many = [await counted_in(size, range(256)) for size in (300, 2000)]
    assert many[0] == many[1]
    assert many[0] <= 14
    await store.close()


_READS: list[tuple[Builder, int]] = [
    (statements.lock_workflows, 4),
    (statements.read_workflow, 1),
    (statements.find_workflow, 1),
    (statements.list_workflows, 1),
    (statements.list_workflows, 2),
    (statements.list_workflows, 3),
    (statements.list_workflows, 4),
    (statements.read_marked, 4),
    (statements.end_waits, 4),
    (statements.ready_nodes, 4),
    (statements.open_nodes, 4),
    (statements.read_nodes, 4),
    (statements.nodes_of, 1),
    (statements.nodes_behind, 1),
    (statements.nodes_feeding, 1),
    (statements.passed_of, 16),
    (statements.some_over, 1),
    (statements.clear_nodes, 1),
    (statements.clear_feeds, 1),
    (statements.clear_waits, 1),
]


@pytest.mark.parametrize(("build", "size"), _READS, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_what_is_asked_for_is_found_in_an_index(path: Path, url: str, build: Builder, size: int) -> None:
    store = SqlBroker(url).own_workflows()
    await store.open()
    await store.close()
    text, _ = Store(url).statements(build, size)
    database = sqlite3.connect(path)
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", [0] * text.count("?"))]
    database.close()
    assert not any(step.startswith("SCAN camora") for step in plan), plan
    # Nor are pages sorted.
    assert not any("TEMP B-TREE" in step for step in plan), plan


async def test_a_server_reads_pages_in_the_order_of_an_index_before_it_knows_what_is_there() -> None:
    with new_database() as name:
        server = shared_postgres()
        url = server.url_of(name)
        store = SqlBroker(url).own_workflows()
        await store.open()
        await group(store, "w", 2000)
        await store.close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
            for place, build in enumerate((statements.nodes_of, statements.nodes_behind, statements.nodes_feeding)):
                text, picks = Store(url).statements(build, 1)
                wanted = text.count("$") if picks is None else 1 + max(picks)
                connection.execute(f"PREPARE page_{place} AS {text}")
                values = ", ".join(["1"] * wanted)
                steps = [row[0] for row in connection.execute(f"EXPLAIN EXECUTE page_{place}({values})")]
                assert not any("Sort" in step or "Seq Scan" in step for step in steps), steps


async def test_what_is_left_of_a_deletion_goes_with_a_worker(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = SqlBroker(url)
    store = broker.own_workflows()
    await broker.open()
    await store.open()
    await group(store, "w", 1200)

    def dies(*_: Any) -> bool:
        raise BrokerUnavailable("killed")

    with monkeypatch.context() as killed:
        killed.setattr(workflows, "prune_workflows", dies)
        with pytest.raises(BrokerUnavailable, match="killed"):
            await store.delete(["w"])
    assert counts(path) == [1, 1201, 1200, 1200, 1]
    # It is gone for everybody, and its id is free.
    assert await store.get("w") is None
    assert await store.read("w", [0]) == [None]
    assert [one.known for one in await store.end(ends("w", [0]), 3)] == [False]
    assert await store.delete(["w"]) == 0
    assert await store.create(WorkflowRecord(id="w"))
    assert await store.add("w", [Node(index=0, feeds=(1,), gate=START), Node(index=1)])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    consumer._prune_at = 0.0  # type: ignore[attr-defined]
    await becomes(lambda: counts(path) == [1, 2, 1, 1, 0], lambda: consumer.receive(1, 0.05))
    assert [state.index for state in await store.nodes("w")] == [0, 1]
    for opened in (consumer, store, broker):
        await opened.close()


async def test_a_large_workflow_is_deleted_in_steps_that_all_others_can_write_between(path: Path, url: str) -> None:
    broker = SqlBroker(url)
    store, other = broker.own_workflows(), SqlBroker(url).own_workflows()
    await store.open()
    await other.open()
    await group(store, "w", 2300)
    await group(store, "stays", 3)
    largest = 0

    def note(session: Any, build: Builder, *args: Any) -> int:
        nonlocal largest
        changed = plain(session, build, *args)
        if build.__name__.startswith("clear"):
            largest = max(largest, changed)
        return int(changed)

    plain = Session.change
    with pytest.MonkeyPatch.context() as noted:
        noted.setattr(Session, "change", note)
        assert await store.delete(["w", "none"]) == 1
    assert largest == 500
    assert counts(path) == [1, 4, 3, 3, 1]
    assert await other.delete(["stays"]) == 1
    assert counts(path) == [0] * 5
    await other.close()
    await store.close()


async def test_those_past_their_time_go_without_any_worker(path: Path, url: str) -> None:
    clock = VirtualClock()
    store = SqlResultBackend(url, clock=clock).own_workflows()
    await store.open()
    for name in ("old", "kept", "open"):
        await group(store, name, 3)
    for name, keep in (("old", 60.0), ("kept", 3600.0)):
        await end_all(store, name, 3)
        assert await store.finish(name, "succeeded", keep, 4)
    clock.advance(61)
    assert await store.get("old") is None
    assert [one.id for one in await store.list()] == ["kept", "open"]
    # The id is free before anybody has cleared it away.
    assert await store.create(WorkflowRecord(id="old"))
    twin = store.twin()
    await twin.open()
    assert await twin.create(WorkflowRecord(id="another"))
    await becomes(lambda: counts(path) == [4, 8, 6, 3, 2])
    assert [(one.id, one.state) for one in await store.list()] == [
        ("another", "recording"),
        ("kept", "finished"),
        ("old", "recording"),
        ("open", "running"),
    ]
    await twin.close()
    await store.close()


async def test_journals_past_their_time_go_with_a_worker_or_with_another_job(path: Path, url: str) -> None:
    clock = VirtualClock()
    broker = SqlBroker(url, clock=clock)
    journal = broker.own_journal()
    await broker.open()
    await journal.open()
    for number_ in range(150):
        await journal.claim(f"job-{number_}", 1, 60.0)
        await journal.write(f"job-{number_}", 1, "step", b"42", 60.0)
    await journal.post("kept", "approved", b"yes", 3600.0, "p")
    assert counts(path, JOURNALS) == [151, 151]
    clock.advance(61)
    assert await journal.read("job-1") == {}
    # What is past its time is no obstacle: another attempt begins with nothing, whatever its token.
    assert await journal.claim("job-1", 0, 600.0) == {}
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    consumer._prune_at = 0.0  # type: ignore[attr-defined]
    await becomes(lambda: counts(path, JOURNALS) == [2, 1], lambda: consumer.receive(1, 0.05))
    clock.advance(601)
    twin = journal.twin()
    await twin.open()
    await twin.claim("job-2", 1, 60.0)
    await becomes(lambda: counts(path, JOURNALS) == [2, 1])
    assert await twin.read("kept") == {"approved/0": b"yes"}
    for opened in (twin, consumer, journal, broker):
        await opened.close()


async def test_what_cannot_be_stored_is_refused_in_words(url: str) -> None:
    broker = SqlBroker(url)
    store, journal = broker.own_workflows(), broker.own_journal()
    await store.open()
    await journal.open()
    with pytest.raises(EncodeError, match="256 characters, and at most 255"):
        await store.create(WorkflowRecord(id="w" * 256))
    assert await store.create(WorkflowRecord(id="w" * 255))
    for node in (
        Node(index=MOST_NODES),
        Node(index=-1),
        Node(index=0, feeds=(MOST_NODES,)),
        Node(index=0, gate=-2),
    ):
        with pytest.raises(EncodeError, match=r"at most 16,777,215 in one.*several workflows"):
            await store.add("w" * 255, [node])
    assert await store.add("w" * 255, [Node(index=MOST_NODES - 1, feeds=(0,), gate=START)])
    with pytest.raises(EncodeError, match="job_id.*at most 255"):
        await journal.claim("j" * 256, 1, 60.0)
    with pytest.raises(EncodeError, match="name.*at most 512"):
        await journal.write("j", 1, "n" * 513, b"", 60.0)
    for odd in ("half \ud800", "a\0b"):
        with pytest.raises(EncodeError, match="name.*NUL, or half a character"):
            await journal.write("j", 1, odd, b"", 60.0)
        with pytest.raises(EncodeError, match="job_id.*NUL, or half a character"):
            await store.create(WorkflowRecord(id=odd))
    with pytest.raises(EncodeError, match="a value of a journal cannot be stored"):
        await journal.write("j", 2**70, "n", b"", 60.0)
    await journal.close()
    await store.close()


@pytest.mark.parametrize("index", [0, 1, MOST_NODES - 1, START])
def test_a_number_says_whose_it_is(index: int) -> None:
    for workflow in (1, 2, 2**39 - 1):
        found = number(workflow, index)
        assert (workflow_of(found), index_of(found)) == (workflow, index)
        assert found < 2**63
