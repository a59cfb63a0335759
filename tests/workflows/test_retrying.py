"""Retries of one workflow at the same moment, each step of one between all steps of the other; and one that dies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from camora.interfaces import NodeState
from camora.outcome import Status
from camora_workflows.changing import retry_failed
from camora_workflows.compose import Chain, Group
from camora_workflows.plan import Kind, Spec, unpack
from camora_workflows.trail import outcome_of

from tests.workflows.driving import Died, Drive, Fate
from tests.workflows.stories import STORIES, app, bad, comes_to, followed, late, ok

FAILING: dict[str, Callable[[], Any]] = {
    "a chain": STORIES["a chain that fails first"][0],
    "a group": STORIES["a group of which one fails"][0],
    "a fan-out": STORIES["a fan-out that never opens"][0],
    "two ways": lambda: followed(Chain([Group([bad.s(), ok.s(), Chain([late.s(), ok.s()])]), ok.s()])),
}


class Turns(Fate):
    """Takes so many steps, and the next ones when it is let."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.stands = asyncio.Event()
        self.may_go = asyncio.Event()
        self.saw: frozenset[tuple[int, int]] | None = None
        """The jobs that had failed when it looked first, and in which runs."""
        self._before = steps

    async def step(self, what: Callable[[], Any]) -> Any:
        if self.steps == self._before:
            self.stands.set()
            async with asyncio.timeout(60):
                await self.may_go.wait()
        self.steps += 1
        answer = await what()
        if self.saw is None and isinstance(answer, list) and answer and isinstance(answer[0], NodeState):
            self.saw = frozenset((node.index, node.run) for node in answer if failed(node))
        return answer


def failed(node: NodeState) -> bool:
    return node.status in ("failed", "expired") and unpack(Spec, node.spec).kind is Kind.JOB


@pytest.fixture
async def made() -> AsyncIterator[Callable[[], Drive]]:
    async with app:
        host = app.composer._host()  # type: ignore[attr-defined]
        store = await (await host.stores()).workflows()
        yield lambda: Drive(app, store, host, comes_to)


async def retry(drive: Drive, fate: Fate) -> int:
    """As a process of its own does."""
    extension = drive.fresh(fate)
    store = await (await extension.host.stores()).workflows()
    assert store is not None
    return await retry_failed(extension.host, store, extension.following, await drive.whole())


async def begun(drive: Drive, steps: int) -> tuple[Turns, asyncio.Task[int]]:
    """A retry that stands after so many steps; or it is done."""
    turns = Turns(steps)
    task = asyncio.create_task(retry(drive, turns))
    await stood(turns, task)
    return turns, task


async def stood(turns: Turns, task: asyncio.Task[Any]) -> bool:
    """Whether it stands now; else it is done."""
    stands = asyncio.create_task(turns.stands.wait())
    await asyncio.wait({task, stands}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    stands.cancel()
    return not task.done()


async def interleaved(drive: Drive, story: str, first: int, second: int) -> tuple[bool, bool]:
    """Two retry, and what they retry fails again as soon as it can; whether each had stood still in between."""
    where = f"after {first} steps of the one, and then {second} of the other"
    await drive.dispatch(FAILING[story]())
    await drive.run()
    before, ends = len(drive.known), sum(map(failed, await drive.nodes()))
    both = []
    for steps in (first, second):
        both.append(await begun(drive, steps))
        await drive.run()
    stood = not both[0][1].done(), not both[1][1].done()
    for turns, task in both:
        turns.may_go.set()
        await task
        await drive.run()
    again = [its_id for its_id in drive.known[before:] if its_id.count(".") == 2]
    saw = set().union(*(turns.saw or () for turns, _ in both))
    assert len(again) == len(saw) >= ends, f"{where}: {again} follow {sorted(saw)}"
    whole = await drive.whole()
    assert (whole.state, whole.status, whole.open) == ("finished", "failed", 0), where
    assert drive.records[drive.workflow].status is Status.FAILED, f"{where}: what it came to is told nobody"
    return stood


@pytest.mark.parametrize("story", FAILING)
async def test_each_run_that_was_seen_to_fail_is_followed_by_one(made: Callable[[], Drive], story: str) -> None:
    told = 0
    for first in itertools.count():
        for second in itertools.count():
            stood = await interleaved(made(), story, first, second)
            told += all(stood)
            if not stood[1]:
                break
        if not stood[0]:
            break
    assert told > 20


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("story", FAILING)
async def test_what_was_reopened_and_never_published_begins_with_a_later_retry(
    made: Callable[[], Drive], story: str, *, after: bool
) -> None:
    died = 0
    for at in itertools.count():
        drive = made()
        await drive.dispatch(FAILING[story]())
        await drive.run()
        ends = sum(map(failed, await drive.nodes()))
        try:
            count = await retry(drive, Fate(at, after=after))
        except Died:
            died += 1
        else:
            assert count == ends
            break
        there = len(drive.waiting)
        assert await retry(drive, Fate()) == ends - there, "those that are on their way are not counted again"
        assert len(drive.waiting) == ends
        drive.succeeds()
        await drive.run()
        whole = await drive.whole()
        assert (whole.state, whole.status) == ("finished", "succeeded"), f"died at step {at}"
        assert drive.records[drive.workflow].status is Status.SUCCEEDED
        assert drive.tasks.count("bad") + drive.tasks.count("late") == 2 * ends
    assert died > 5


@pytest.mark.parametrize("first", ["who follows the failure", "what is run again"])
@pytest.mark.parametrize("story", FAILING)
async def test_what_is_retried_while_its_failure_is_being_followed_can_be_gone_on_with(
    made: Callable[[], Drive], story: str, first: str
) -> None:
    for steps in itertools.count():
        drive = made()
        await drive.dispatch(FAILING[story]())
        turns = Turns(steps)
        follower = asyncio.create_task(drive.run(extension=drive.fresh(turns)))
        if not await stood(turns, follower):
            break
        drive.succeeds()
        await retry(drive, Fate())
        if first == "what is run again":
            await drive.run()
        turns.may_go.set()
        await follower
        await drive.run()
        # The end that came late may have said of some that they do not run.
        for left in (1, 0):
            if not await retry(drive, Fate()):
                break
            assert left, f"it was retried after step {steps}, and there is no end of it"
            await drive.run()
        whole = await drive.whole()
        assert (whole.state, whole.status) == ("finished", "succeeded"), f"it was retried after step {steps}"
        assert not [node for node in await drive.nodes() if node.status == "skipped" and outcome_of(node).origin >= 0]
    assert steps > 3
