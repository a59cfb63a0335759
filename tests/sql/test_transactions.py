"""What one transaction holds: shared by those who write at the same moment, unclear when its commit fails."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain, EncodeError
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import Action, JobRecord, Settlement, Status
from camora_sql.broker import SqlBroker
from camora_sql.dialects.base import Driver
from camora_sql.dialects.sqlite import SqliteDialect
from msgspec.structs import replace

from tests.sql.processes import message


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[SqlBroker]:
    broker = SqlBroker(f"sqlite:///{tmp_path}/camora.db?synchronous=normal")
    await broker.open()
    yield broker
    await broker.close()


class Commits:
    """Counts commits, and can make the next one fail after it happened, or instead of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.fail_after = self.fail_before = 0
        real = SqliteDialect.commit

        def commit(dialect: SqliteDialect, driver: Driver) -> None:
            self.count += 1
            if self.fail_before:
                raise _failure(self.fail_before)
            real(dialect, driver)
            if self.fail_after:
                raise _failure(self.fail_after)

        monkeypatch.setattr(SqliteDialect, "commit", commit)


def _failure(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


@pytest.fixture
def commits(broker: SqlBroker, monkeypatch: pytest.MonkeyPatch) -> Commits:
    return Commits(monkeypatch)


async def test_publications_of_one_moment_share_transactions(broker: SqlBroker, commits: Commits) -> None:
    ids = [f"job-{number:03}" for number in range(300)]
    answers = await asyncio.gather(*[broker.publish([message(job_id)]) for job_id in ids])
    assert answers == [[job_id] for job_id in ids]
    assert commits.count < 60


async def test_one_that_cannot_be_stored_does_not_take_the_others_along(broker: SqlBroker) -> None:
    bad = replace(message("bad"), priority=2**80)
    answers = await asyncio.gather(
        *[broker.publish([one]) for one in (message("a"), bad, message("b"))], return_exceptions=True
    )
    assert isinstance(answers[1], EncodeError)
    assert [answers[0], answers[2]] == [["a"], ["b"]]
    assert await broker.queues.find("bad") is None
    assert await broker.queues.find("b") is not None


@pytest.mark.parametrize("happened", [True, False])
async def test_a_commit_that_may_have_happened_is_uncertain_and_may_be_repeated(
    broker: SqlBroker, commits: Commits, happened: bool
) -> None:
    if happened:
        commits.fail_after = 10
    else:
        commits.fail_before = 10
    with pytest.raises(DispatchUncertain) as error:
        await broker.publish([message("one")])
    assert error.value.job_id == "one"
    commits.fail_after = commits.fail_before = 0
    assert await broker.publish([message("one")]) == ["one"]
    assert await broker.queues.counts() == {"work": {"ready": 1}}


async def test_a_commit_refused_by_a_full_disk_stored_nothing(broker: SqlBroker, commits: Commits) -> None:
    commits.fail_before = 13
    with pytest.raises(BrokerUnavailable, match="full"):
        await broker.publish([message("one")])
    commits.fail_before = 0
    assert await broker.queues.find("one") is None
    assert await broker.publish([message("one")]) == ["one"]


async def test_a_settlement_whose_commit_is_unclear_is_applied_once(broker: SqlBroker, commits: Commits) -> None:
    await broker.publish([message("one")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    [delivery] = await consumer.receive(1, 0.0)
    record = JobRecord(id="one", status=Status.SUCCEEDED, value=b"1")
    settlement = Settlement(delivery=delivery, action=Action.ACK, record=record, successors=(message("next"),))
    commits.fail_after = 10
    with pytest.raises(BrokerUnavailable):
        await consumer.settle([settlement])
    commits.fail_after = 0
    await consumer.settle([settlement])
    assert [one.id for one in await consumer.receive(10, 0.0)] == ["next"]
    await consumer.close()


async def test_after_a_reboot_every_lease_is_over(broker: SqlBroker, tmp_path: Path) -> None:
    await broker.publish([message("one")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me", lease=3600.0))
    assert await consumer.receive(1, 0.0)
    twin = broker.twin()
    await twin.open()
    other = await twin.consumer(ConsumerSettings(queues=("work",), worker="other", lease=3600.0))
    assert not await other.receive(1, 0.0)
    await twin.close()
    if not SqliteDialect(broker.url, broker._store.settings).lease_epoch():
        pytest.skip("this system does not name its boots")
    with sqlite3.connect(tmp_path / "camora.db") as database:
        database.execute("UPDATE camora_facts SET value = 'an earlier boot' WHERE name = 'lease_epoch'")
    database.close()
    twin = broker.twin()
    await twin.open()
    other = await twin.consumer(ConsumerSettings(queues=("work",), worker="other", lease=3600.0))
    assert [one.deliveries for one in await other.receive(1, 0.0)] == [2]
    await twin.close()


@pytest.mark.parametrize("code", [10, 5], ids=["the disk fails", "others write all the time"])
async def test_what_the_boot_before_left_is_ended_before_anything_is_lent_out(
    broker: SqlBroker, tmp_path: Path, commits: Commits, code: int
) -> None:
    if not broker.database.dialect.lease_epoch():
        pytest.skip("this system does not name its boots")
    await broker.publish([message("one")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me", lease=3600.0))
    assert await consumer.receive(1, 0.0)
    with sqlite3.connect(tmp_path / "camora.db") as database:
        database.execute("UPDATE camora_facts SET value = 'an earlier boot' WHERE name = 'lease_epoch'")
    database.close()
    twin = broker.twin()
    commits.fail_before = code
    if code == 10:
        with pytest.raises(BrokerUnavailable, match="disk"):
            await twin.open()
    else:
        # Who only publishes and looks is served all the same; who would lend out is not.
        await twin.open()
        assert await twin.queues.counts() == {"work": {"leased": 1}}
        with pytest.raises(BrokerUnavailable):
            await twin.consumer(ConsumerSettings(queues=("work",), worker="other"))
    commits.fail_before = 0
    await twin.open()
    other = await twin.consumer(ConsumerSettings(queues=("work",), worker="other"))
    assert [one.deliveries for one in await other.receive(1, 0.0)] == [2]
    await twin.close()


async def test_only_the_same_database_is_settled_into(broker: SqlBroker, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "camora.db")
    same = SqlBroker(f"sqlite+pysqlite:///{tmp_path}/link.db")
    other = SqlBroker(f"sqlite:///{tmp_path}/other.db")
    assert broker.settles_into(same.own_results())
    assert not broker.settles_into(other.own_results())
    with pytest.raises(ConfigurationError, match="sqlite"):
        SqlBroker("oracle://host/db")
