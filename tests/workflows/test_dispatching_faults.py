"""Dispatching while stores and brokers fail, and where there is no store at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from camora.builtin.memory import MemoryBroker, MemoryResultBackend, MemoryStore
from camora.builtin.memory.workflows import MemoryWorkflowStore
from camora.errors import (
    BrokerUnavailable,
    DispatchError,
    DispatchUncertain,
    JobFailed,
    MessageTooLarge,
    UnsupportedCapability,
)
from camora.interfaces import Node, WorkflowStore
from camora.interfaces.capabilities import Support
from camora.message import Envelope
from camora.outcome import CancelResult
from camora.settings import AppSettings
from camora_workflows import Graph, WorkflowJob, chain, chord, group, workflow

from tests.workflows.shop import Shop

LIMIT = 60.0


class Trouble:
    """Which calls are to fail, and how often: before they have taken effect, or after it."""

    def __init__(self) -> None:
        self.before: dict[str, int] = {}
        self.after: dict[str, int] = {}
        self.calls: list[str] = []

    async def around(self, name: str, call: Any) -> Any:
        self.calls.append(name)
        await asyncio.sleep(0)
        self._strike(self.before, name)
        answer = await call()
        self._strike(self.after, name)
        return answer

    def _strike(self, planned: dict[str, int], name: str) -> None:
        if planned.get(name, 0) > 0:
            planned[name] -= 1
            raise BrokerUnavailable(f"the test lets {name} fail")


class FailingStore(MemoryWorkflowStore):
    trouble: Trouble

    async def create(self, record: Any) -> bool:
        base = super()
        return bool(await self.trouble.around("create", lambda: base.create(record)))

    async def add(self, workflow_id: str, nodes: Sequence[Node], now: int = 0) -> bool:
        base = super()
        return bool(await self.trouble.around("add", lambda: base.add(workflow_id, nodes, now)))

    async def start(self, workflow_id: str, plan: bytes, now: int) -> bool:
        base = super()
        return bool(await self.trouble.around("start", lambda: base.start(workflow_id, plan, now)))

    async def passed(self, workflow_id: str, gate: int, index: int, now: int, run: int = 0) -> None:
        base = super()
        await self.trouble.around("passed", lambda: base.passed(workflow_id, gate, index, now, run))


class FailingBroker(MemoryBroker):
    """As one behind a network: a dispatch is repeated."""

    capabilities = attrs.evolve(MemoryBroker.capabilities, shared=Support.NATIVE)
    trouble: Trouble

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        base = super()
        published: Sequence[str] = await self.trouble.around("publish", lambda: base.publish(envelopes))
        return published

    def own_workflows(self) -> WorkflowStore | None:
        store = FailingStore(self.store)
        store.trouble = self.trouble
        return store

    def twin(self) -> Any:
        made = type(self)(self.store)
        made.trouble = self.trouble
        return made


def failing(**options: Any) -> tuple[Shop, Trouble]:
    trouble = Trouble()
    broker = FailingBroker(MemoryStore())
    broker.trouble = trouble
    return Shop(broker, settings=AppSettings(dispatch_timeout=0.2), **options), trouble


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["create", "add", "start", "publish", "passed"])
async def test_one_failure_is_waited_for(call: str, when: str) -> None:
    shop, trouble = failing()
    getattr(trouble, when)[call] = 1
    async with shop.app, shop.app.worker():
        job = await (group(shop.double.s(1), shop.double.s(2)) >> shop.total.s()).dispatch()
        assert await job.result(LIMIT) == 6
        assert len(shop.ran) == 3
        assert trouble.calls.count(call) == 2


@pytest.mark.parametrize("call", ["create", "add"])
async def test_before_the_start_a_store_that_stays_away_means_that_nothing_was_dispatched(call: str) -> None:
    shop, trouble = failing()
    trouble.before[call] = 1000
    async with shop.app:
        with pytest.raises(BrokerUnavailable):
            await (group(shop.double.s(1), shop.double.s(2)) >> shop.total.s()).dispatch()
        trouble.before.clear()
        stores = await shop.app.composer._host().stores()  # type: ignore[attr-defined]
        assert not await (await stores.workflows()).list()
        assert "publish" not in trouble.calls


async def test_an_iterable_that_raises_while_the_store_is_away() -> None:
    shop, trouble = failing()
    trouble.before["add"] = 1000

    def some() -> Any:
        yield from (shop.double.s(number) for number in range(800))
        raise RuntimeError("the file ended early")

    async with shop.app:
        with pytest.raises(RuntimeError, match="the file ended early"):
            await group(some()).dispatch()
        stores = await shop.app.composer._host().stores()  # type: ignore[attr-defined]
        assert not await (await stores.workflows()).list()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["start", "publish", "passed"])
async def test_from_the_start_on_it_may_run_and_can_be_dispatched_again(call: str, when: str) -> None:
    shop, trouble = failing()
    getattr(trouble, when)[call] = 1000
    async with shop.app, shop.app.worker():
        composed = group([shop.double.s(1), shop.double.s(2)]) >> shop.total.s()
        with pytest.raises(DispatchUncertain, match="cannot double it") as caught:
            await composed.dispatch()
        assert caught.value.job_id
        trouble.before.clear()
        trouble.after.clear()
        job = await chain(composed).options(job_id=caught.value.job_id).dispatch()
        assert await job.result(LIMIT) == 6
        assert sorted(shop.ran) == ["double 1", "double 2", "total of 2"]


async def test_who_deletes_a_workflow_while_it_is_recorded_is_heard() -> None:
    shop, trouble = failing()
    async with shop.app:
        composed = group(shop.double.s(number) for number in range(2500))
        dispatching = asyncio.create_task(composed.options(job_id="gone").dispatch())
        async with asyncio.timeout(LIMIT):
            while "add" not in trouble.calls:
                await asyncio.sleep(0)
        assert await workflow(shop.app, "gone").cancel() is CancelResult.REMOVED
        with pytest.raises(DispatchError, match="was deleted, or started by somebody else"):
            await dispatching
        assert "publish" not in trouble.calls


# Without a store


class Bare(MemoryBroker):
    """A broker that keeps no workflows."""

    def own_workflows(self) -> WorkflowStore | None:
        return None

    def own_results(self) -> Any:
        return BareResults(self.store)

    def settles_into(self, results: Any) -> bool:
        return isinstance(results, BareResults)


class BareResults(MemoryResultBackend):
    def own_workflows(self) -> WorkflowStore | None:
        return None


async def test_chains_and_callbacks_need_no_store() -> None:
    shop = Shop(Bare())
    async with shop.app, shop.app.worker():
        job = await (shop.add.s(1, 2) >> shop.double.s() >> shop.add.s(10)).dispatch()
        assert await job.result(LIMIT) == 16
        followed = shop.add.s(1, 2)
        followed.on_success = shop.notify.si("receipt")
        job = await chain(followed, shop.fail.s(), shop.double.s(), on_failure=shop.alert.s()).dispatch()
        with pytest.raises(JobFailed, match="no 3"):
            await job.result(LIMIT)
        async with asyncio.timeout(LIMIT):
            while not shop.told or "notify receipt" not in shop.ran:
                await asyncio.sleep(0.01)
        assert shop.told[0].error_text == "no 3"
        assert await (await (shop.add.s(0, 1) >> shop.order.s()).dispatch()).result(LIMIT)


@pytest.mark.parametrize("kind", ["group", "chord", "map", "graph", "group in the middle"])
async def test_what_needs_a_store_is_refused_in_words(kind: str) -> None:
    shop = Shop(Bare())

    def endless() -> Any:
        while True:
            yield shop.add.s(1, 1)

    made: dict[str, Any] = {
        "group": lambda: group(endless()),
        "chord": lambda: chord([shop.add.s(1, 2), shop.add.s(1, 2)], shop.total.s()),
        "map": lambda: shop.double.map([1, 2]),
        "graph": lambda: Graph().add("a", shop.add.s(1, 2)).add("b", shop.double.s(), after=["a"]),
        "group in the middle": lambda: shop.add.s(1, 2) >> group(shop.double.s(), shop.double.s()),
    }
    async with shop.app:
        with pytest.raises(UnsupportedCapability, match="keep results in a store that keeps workflows") as caught:
            await made[kind]().dispatch()
        assert caught.value.capability == "workflows"
        assert not await shop.app.broker.queues.counts()


async def test_what_travels_must_fit_into_a_message() -> None:
    shop = Shop(Bare(), settings=AppSettings(max_message_size=4000))
    async with shop.app:
        with pytest.raises(MessageTooLarge, match="its first message, with which all that follows travels, has"):
            await chain(shop.add.s(1, 2), *[shop.double.s() for _ in range(50)]).dispatch()


async def test_members_of_what_travels_are_known_to_nobody() -> None:
    shop = Shop(Bare())
    async with shop.app:
        job = await (shop.add.s(1, 2) >> shop.double.s()).dispatch()
        assert isinstance(job, WorkflowJob)
        for asked in (job.cancel(), job.retry(), job.forget(), anext(workflow(shop.app, job.id).members())):
            with pytest.raises(UnsupportedCapability, match="nobody knows the members"):
                await asked
