"""Jobs that end while they wait, because somebody cancels them; and those that come back from the dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from camora import CancelResult
from camora.errors import BrokerUnavailable, JobCancelled
from camora.interfaces import Ending, FollowUp
from camora.message import Message
from camora.outcome import JobRecord, Status

from tests.core.extensions.examples import NEXT, Next, app_with, away, earlier


class Shop:
    """An app of one task, and one that is told of its end."""

    def __init__(self, extension: Next, broker: str) -> None:
        self.extension = extension
        self.app = app_with(extension, broker=broker)
        self.told: list[tuple[str, Any]] = []
        self.ran: list[int] = []
        self.lives: list[int] = []

        @self.app.task(name="note")
        async def note(status: str, value: Any) -> None:
            self.told.append((status, value))

        @self.app.task(name="work")
        async def work(x: int, message: Message) -> int:
            self.ran.append(x)
            self.lives.append(message.life)
            if x < 0:
                raise ValueError("negative")
            return x

        self.task = work

    async def work(self) -> None:
        await self.app.make_worker().run(burst=True)


async def test_what_follows_a_cancelled_job_is_published(broker_url: str) -> None:
    shop = Shop(Next(), broker_url)
    shop.extension.records = (JobRecord(id="whole", status=Status.CANCELLED, finished=1),)
    async with shop.app:
        job = await shop.task.s(1).options(headers={NEXT: "note"}).dispatch()
        assert await job.cancel() is CancelResult.REMOVED
        assert await job.status() is Status.CANCELLED
        with pytest.raises(JobCancelled):
            await (await shop.app.job("whole")).result(timeout=0)
        await shop.work()
    [ending] = shop.extension.seen
    assert (ending.message.id, ending.record.status) == (job.id, Status.CANCELLED)
    assert (shop.told, shop.ran) == ([("cancelled", None)], [])


async def test_a_scheduled_job_is_told_of_too(broker_url: str) -> None:
    shop = Shop(Next(), broker_url)
    async with shop.app:
        job = await shop.task.s(1).options(headers={NEXT: "note"}, delay=3600).dispatch()
        assert await job.cancel() is CancelResult.REMOVED
        assert await job.cancel() in (CancelResult.FINISHED, CancelResult.UNKNOWN)
        await shop.work()
    assert len(shop.extension.seen) == 1
    assert shop.told == [("cancelled", None)]


async def test_a_cancelling_that_fails_half_way_can_be_repeated(broker_url: str) -> None:
    """Before its end is known, nothing is removed; after that, the removal is all that is left to do."""
    shop = Shop(Next(), broker_url)
    async with shop.app:
        job = await shop.task.s(1).options(headers={NEXT: "note"}).dispatch()
        shop.extension.trouble = [away()]
        with pytest.raises(BrokerUnavailable):
            await job.cancel()
        assert await job.status() is Status.QUEUED
        queues = (await shop.app._connections.get()).broker.queues
        real = queues.cancel

        async def broken(job_id: str) -> CancelResult:
            raise away()

        queues.cancel = broken  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable):
            await job.cancel()
        queues.cancel = real  # type: ignore[method-assign]
        assert await job.cancel() is CancelResult.REMOVED
        await shop.work()
    assert (shop.told, shop.ran) == ([("cancelled", None)], [])


async def test_what_an_earlier_run_came_to_stands_when_it_is_removed() -> None:
    extension = Next()
    extension.instead = lambda ending: earlier(ending, Status.SUCCEEDED, value=b"5")
    shop = Shop(extension, "memory://")
    async with shop.app:
        job = await shop.task.s(1).options(headers={NEXT: ""}).dispatch()
        assert await job.cancel() is CancelResult.REMOVED
        assert await job.result(timeout=0) == 5


async def test_a_dead_letter_comes_back_as_it_is_wanted(broker_url: str) -> None:
    class Marking(Next):
        async def requeued(self, messages: Sequence[Message]) -> Sequence[Message]:
            self.back += messages
            return [msgspec.structs.replace(one, headers={NEXT: "note", "again": "yes"}) for one in messages]

        async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
            return await super().ended(endings)

    shop = Shop(Marking(), broker_url)
    async with shop.app:
        job = await shop.task.s(-1).options(headers={NEXT: ""}).dispatch()
        await shop.work()
        assert await shop.app.requeue(job.id)
        await shop.work()
    assert [message.id for message in shop.extension.back] == [job.id]
    assert [ending.message.headers for ending in shop.extension.seen] == [{NEXT: ""}, {NEXT: "note", "again": "yes"}]
    assert shop.lives == [0, 1]
    assert shop.told == [("failed", None)]


async def test_a_requeue_that_cannot_be_told_of_leaves_the_letter() -> None:
    class Refusing(Next):
        async def requeued(self, messages: Sequence[Message]) -> Sequence[Message]:
            raise away()

    shop = Shop(Refusing(), "memory://")
    async with shop.app:
        job = await shop.task.s(-1).options(headers={NEXT: ""}).dispatch()
        await shop.work()
        with pytest.raises(BrokerUnavailable):
            await shop.app.requeue(job.id)
        assert await shop.app.dead_letter(job.id) is not None
        assert await job.status() is Status.FAILED
