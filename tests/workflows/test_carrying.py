"""Workflows that travel with their jobs, where nothing keeps them: through real workers, and by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from camora import AppSettings, Camora, Discard
from camora.builtin.memory.broker import MemoryBroker
from camora.builtin.memory.results import MemoryResultBackend
from camora.errors import JobDiscarded, JobFailed, UnsupportedCapability
from camora.interfaces import Ending
from camora.message import Message
from camora.outcome import JobRecord, Status
from camora_workflows.carrying import carried_on
from camora_workflows.compose import Chain, Group
from camora_workflows.failed_step import FailedStep
from camora_workflows.plan import HEADER, Carried, CarriedNode, Input, Spec, place_of

app = Camora("memory://", name="carrying", settings=AppSettings(max_message_size=20_000))
told: list[Any] = []


@app.task(name="add")
async def add(a: int, b: int) -> int:
    return a + b


@app.task(name="text")
async def text(size: int) -> str:
    return "x" * size


@app.task(name="measure")
async def measure(text: str) -> int:
    return len(text)


@app.task(name="bad")
async def bad(value: Any = None) -> int:
    raise ValueError("no")


@app.task(name="drop")
async def drop(value: Any = None) -> int:
    raise Discard("not today")


@app.task(name="tell")
async def tell(value: Any = "nothing") -> str:
    told.append(value)
    return "told"


@app.task(name="alert")
async def alert(failed: FailedStep) -> None:
    told.append(failed)


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A worker of an app that has no store of workflows."""
    monkeypatch.setattr(MemoryBroker, "own_workflows", lambda self: None)
    monkeypatch.setattr(MemoryResultBackend, "own_workflows", lambda self: None)
    told.clear()
    async with app, app.worker():
        yield


async def told_this_many(count: int) -> None:
    for _ in range(6000):
        if len(told) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"told only {told}")


async def test_a_chain_hands_each_result_on(running: None) -> None:
    job = await app.composer.dispatch(Chain([add.s(1, 2), add.s(10), tell.s(), tell.si("end")]))
    assert await job.result(timeout=60) == "told"
    assert told == [13, "end"]


async def test_what_follows_success_and_failure(running: None) -> None:
    what = Chain([add.s(1, 2), bad.s(), tell.s()])
    what.on_success, what.on_failure = tell.s(), Chain([alert.s(), tell.si("cleared")])
    job = await app.composer.dispatch(what)
    with pytest.raises(JobFailed, match="ValueError: no"):
        await job.result(timeout=60)
    await told_this_many(2)
    assert told == [
        FailedStep(job_id=f"{job.id}.1", task="bad", error_type="ValueError", error_text="no"),
        "cleared",
    ]


async def test_a_discarded_step_ends_it_quietly(running: None) -> None:
    what = Chain([drop.s(), tell.s()])
    what.on_failure = tell.si("failed")
    job = await app.composer.dispatch(what)
    with pytest.raises(JobDiscarded):
        await job.result(timeout=60)
    last = tell.si("last")
    await last.dispatch()
    await told_this_many(1)
    assert told == ["last"]


async def test_a_result_that_is_too_large_to_travel_fails_the_step_that_was_to_get_it(running: None) -> None:
    what = Chain([text.s(30_000), measure.s()])
    what.on_failure = alert.s()
    job = await app.composer.dispatch(what)
    with pytest.raises(JobFailed, match="store of workflows"):
        await job.result(timeout=60)
    await told_this_many(1)
    assert told[0].job_id == f"{job.id}.1"
    assert told[0].task == "measure"


async def test_what_needs_a_store_is_refused_in_words(running: None) -> None:
    with pytest.raises(UnsupportedCapability, match="redis://"):
        await app.composer.dispatch(Group([add.s(1, 2), add.s(3, 4)]))
    assert told == []


async def test_following_it_twice_gives_the_same_ids() -> None:
    """Whoever ends the job again, after the death of whoever had ended it, makes nothing new."""
    async with app:
        host = app.composer._host()  # type: ignore[attr-defined]
        body = host.codec.encode(Message(id="w.1", task="tell"))
        after = CarriedNode(index=1, spec=Spec(task="tell", message=body, input=Input.RESULT), feeds=(2,))
        last = CarriedNode(index=2, spec=Spec(task="tell", message=body, delay=5000, expires=9000))
        place = Carried(workflow="w", index=0, feeds=(1,), result=2, nodes=(after, last))
        record = JobRecord(id="w.0", status=Status.SUCCEEDED, value=host.result_codec.encode_value({"a": [1]}))
        ending = Ending(message=Message(id="w.0", task="add", headers={}), record=record)
        first, second = carried_on(host, place, ending), carried_on(host, place, ending)
        assert [one.id for one in first.successors] == [one.id for one in second.successors] == ["w.1"]
        message = host.codec.decode(first.successors[0].body)
        assert message.args == [{"a": [1]}]
        further = place_of(message.headers[HEADER])
        assert further == Carried(workflow="w", index=1, feeds=(2,), result=2, nodes=(last,))
        assert first.records == ()

        ended = carried_on(host, further, Ending(message=message, record=record))
        [envelope] = ended.successors
        assert 0 < envelope.due - host.clock.now_ms() <= 5000
        assert envelope.expires is not None
        assert envelope.expires - envelope.due == 4000


async def test_a_long_chain_of_what_is_skipped_needs_no_stack() -> None:
    async with app:
        host = app.composer._host()  # type: ignore[attr-defined]
        nodes = tuple(
            CarriedNode(index=index, spec=Spec(task="tell", message=b""), feeds=(index + 1,))
            for index in range(1, 20_000)
        )
        place = Carried(workflow="w", index=0, feeds=(1,), result=19_999, nodes=nodes)
        ending = Ending(
            message=Message(id="w.0", task="bad"), record=JobRecord(id="w.0", status=Status.FAILED, task="bad")
        )
        [record] = carried_on(host, place, ending).records
        assert (record.id, record.status, record.task) == ("w", Status.FAILED, "bad")
