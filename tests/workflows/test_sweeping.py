"""What somebody who died left undone, and who does it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from camora.outcome import Status
from camora_workflows.compose import Chain, Group
from camora_workflows.plan import Outcome
from camora_workflows.settings import WorkflowSettings
from camora_workflows.sweeping import Sweeper
from camora_workflows.trail import step_of

from tests.workflows.driving import Died, Drive, Fate
from tests.workflows.stories import STORIES, app, comes_to, ok


@pytest.fixture
async def made() -> AsyncIterator[Callable[[], Drive]]:
    async with app:
        host = app.composer._host()  # type: ignore[attr-defined]
        store = await (await host.stores()).workflows()
        yield lambda: Drive(app, store, host, comes_to)


async def told(drive: Drive) -> dict[str, Any]:
    found = await drive.summary()
    found["published"] = sorted(its_id.removeprefix(drive.workflow) for its_id in found["published"])
    return found


@pytest.mark.parametrize("story", ["a chain", "a group", "an empty group", "a fan-out in the middle", "a diamond"])
async def test_a_dispatcher_that_dies_has_dispatched_all_or_nothing(made: Callable[[], Drive], story: str) -> None:
    make, _, _ = STORIES[story]
    whole = made()
    await whole.dispatch(make())
    steps = whole.fate.steps
    await whole.run()
    for at in range(steps):
        for after in (False, True):
            drive = made()
            drive.fate = Fate(at, after=after)
            with contextlib.suppress(Died):
                await drive.dispatch(make())
            record = await drive.store.get(drive.workflow)
            if record is None or record.state == "recording":
                assert drive.known == []
                continue
            await drive.resume()
            await drive.run()
            assert await told(drive) == await told(whole), f"died {'after' if after else 'before'} step {at}"


async def test_who_sweeps_and_dies_is_followed_by_another(made: Callable[[], Drive]) -> None:
    def what() -> Chain[Any]:
        return Chain([Group([ok.s() for _ in range(3)]), ok.s()])

    whole = made()
    await whole.dispatch(what())
    await whole.run()
    for at in range(40):
        drive = made()
        drive.fate = Fate(3)  # recorded and started, and nothing published
        with pytest.raises(Died):
            await drive.dispatch(what())
        assert (await drive.whole()).state == "running"
        drive.fate = Fate(at, after=bool(at % 2))
        with contextlib.suppress(Died):
            await drive.resume()
        ended = drive.fate.steps <= at
        await drive.resume()
        await drive.run()
        assert await told(drive) == await told(whole)
        if ended:
            return
    raise AssertionError("it takes more steps than that")


async def test_a_canceller_who_dies_half_way_leaves_no_workflow_that_never_ends(made: Callable[[], Drive]) -> None:
    """Of two members one is marked as cancelled, and whoever did it dies at each step of what follows."""
    for at in range(40):
        drive = made()
        await drive.dispatch(STORIES["a chord"][0]())
        extension = drive.fresh()
        members = [node for node in await drive.nodes() if node.gate is not None]
        drive.fate = Fate(at)
        gone = step_of(drive.workflow, members[0].index, 0, Outcome(status=Status.CANCELLED.value))
        with contextlib.suppress(Died):
            await extension.following.carry_out(await extension.store(), [gone])
        ended = drive.fate.steps <= at
        drive.fate = Fate()
        if at:
            await drive.resume()
        await drive.run()
        whole = await drive.whole()
        if at:
            assert (whole.state, whole.status) == ("finished", "cancelled")
            assert drive.records[drive.workflow].status is Status.CANCELLED
            assert "cheer" not in drive.ran()
        if ended:
            return
    raise AssertionError("it takes more steps than that")


async def test_a_recording_that_was_given_up_is_deleted_and_a_young_one_is_not(made: Callable[[], Drive]) -> None:
    old, young = made(), made()
    for drive in (old, young):
        drive.fate = Fate(2)
        with pytest.raises(Died):
            await drive.dispatch(STORIES["a group"][0]())
    extension = old.fresh()
    sweeper = Sweeper(extension.host, extension.following, WorkflowSettings(abandon=3600))
    assert await old.store.add(young.workflow, [], now=old.app.clock.now_ms() + 7200_000)
    await sweeper.sweep(old.store)
    assert await old.store.get(old.workflow) is not None
    later = WorkflowSettings(abandon=0.001)
    while await old.store.get(old.workflow) is not None:
        await Sweeper(extension.host, extension.following, later).sweep(old.store)
    assert await young.store.get(young.workflow) is not None


async def test_a_workflow_that_waits_for_its_jobs_is_looked_at_once(made: Callable[[], Drive]) -> None:
    drive = made()
    await drive.dispatch(STORIES["a chain"][0]())
    extension = drive.fresh()
    sweeper = Sweeper(extension.host, extension.following, WorkflowSettings(quiet=0.001))
    while not await sweeper.sweep(drive.store):
        pass
    drive.fate = Fate()
    assert await sweeper.sweep(drive.store) == 0
    assert drive.fate.steps == 0
    await drive.run()
    assert (await drive.whole()).state == "finished"
