"""Dead letters of workflows that are put back: what was skipped because of them runs after all."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from camora.outcome import Status

from tests.workflows.driving import Drive, Fate
from tests.workflows.stories import STORIES, app, comes_to

FAILING = [story for story, (_, tasks, _) in STORIES.items() if "bad" in tasks]


def all_well(task: str) -> Status:
    return Status.SUCCEEDED


@pytest.fixture
async def made() -> AsyncIterator[Callable[[], Drive]]:
    async with app:
        host = app.composer._host()  # type: ignore[attr-defined]
        store = await (await host.stores()).workflows()
        yield lambda: Drive(app, store, host, comes_to)


async def failed(drive: Drive, story: str) -> None:
    await drive.dispatch(STORIES[story][0]())
    await drive.run()
    assert (await drive.whole()).status == "failed"


@pytest.mark.parametrize("story", FAILING)
async def test_a_workflow_succeeds_after_all(made: Callable[[], Drive], story: str) -> None:
    well, drive = made(), made()
    await failed(drive, story)
    alerts = drive.tasks.count("alert")
    assert alerts == STORIES[story][1].split().count("alert")
    await drive.requeue(all_well)
    await drive.run()
    whole = await drive.whole()
    assert (whole.state, whole.status, whole.open) == ("finished", "succeeded", 0)
    assert drive.records[drive.workflow].status is Status.SUCCEEDED
    # What was told stays told, and all runs that would have run.
    assert drive.tasks.count("alert") == alerts
    await well.dispatch(STORIES[story][0](), all_well)
    await well.run()
    assert not Counter(well.tasks) - Counter(drive.tasks)


@pytest.mark.parametrize("story", FAILING)
async def test_whoever_puts_it_back_may_die(made: Callable[[], Drive], story: str) -> None:
    for at in range(9):
        for after in (False, True):
            drive = made()
            await failed(drive, story)
            drive.fate = Fate(at, after=after)
            await drive.requeue(all_well)
            drive.fate = Fate()
            await drive.run()
            assert (await drive.whole()).status == "succeeded", f"died {'after' if after else 'before'} step {at}"


@pytest.mark.parametrize("story", FAILING)
async def test_it_may_fail_again(made: Callable[[], Drive], story: str) -> None:
    drive = made()
    await failed(drive, story)
    await drive.requeue(comes_to)
    await drive.run()
    whole = await drive.whole()
    assert (whole.state, whole.status) == ("finished", "failed")
    assert drive.records[drive.workflow].status is Status.FAILED
