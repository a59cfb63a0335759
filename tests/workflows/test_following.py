"""What follows the end of a job, and that it is the same wherever whoever finds it out dies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from camora.dispatchable import Dispatchable
from camora_workflows.compose import Chain, Group

from tests.workflows.driving import Drive, Fate
from tests.workflows.stories import STORIES, app, bad, comes_to, ok


def once(drive: Drive, number: int, seen: list[str]) -> Callable[[str], bool]:
    """True for the job that was published as this one, the first time."""

    def again(its_id: str) -> bool:
        if drive.known[number : number + 1] != [its_id] or seen:
            return False
        seen.append(its_id)
        return True

    return again


@pytest.fixture
async def made() -> AsyncIterator[Callable[[], Drive]]:
    async with app:
        stores = await app.composer._host().stores()  # type: ignore[attr-defined]
        store = await stores.workflows()
        host = app.composer._host()  # type: ignore[attr-defined]
        yield lambda: Drive(app, store, host, comes_to)


async def whole_of(drive: Drive, what: Dispatchable[Any], **how: Any) -> dict[str, Any]:
    await drive.dispatch(what)
    await drive.run(**how)
    found = await drive.summary()
    # Ids begin with that of the workflow, which is another one each time.
    found["published"] = sorted(its_id.removeprefix(drive.workflow) for its_id in found["published"])
    return found


@pytest.mark.parametrize("story", STORIES)
async def test_what_runs_and_what_it_comes_to(made: Callable[[], Drive], story: str) -> None:
    make, tasks, status = STORIES[story]
    drive = made()
    found = await whole_of(drive, make())
    assert " ".join(drive.ran()) == tasks
    assert (found["state"], found["status"], found["record"]) == ("finished", status, status)
    assert all(end[2] for end in found["ends"].values())


@pytest.mark.parametrize("story", STORIES)
async def test_all_that_ends_at_once_is_followed_together(made: Callable[[], Drive], story: str) -> None:
    make, tasks, _ = STORIES[story]
    alone, together = made(), made()
    first = await whole_of(alone, make())
    second = await whole_of(together, make(), together=100)
    # Of several that fail, any may be the reason.
    assert " ".join(together.ran()) == tasks
    assert first["ends"].keys() == second["ends"].keys()
    assert {at: end[2] for at, end in first["ends"].items()} == {at: end[2] for at, end in second["ends"].items()}
    assert first["record"] == second["record"]


@pytest.mark.parametrize("story", STORIES)
async def test_it_is_the_same_wherever_somebody_dies(made: Callable[[], Drive], story: str) -> None:
    make, _, _ = STORIES[story]
    drive = made()
    await drive.dispatch(make())
    before = drive.fate.steps
    await drive.run()
    expected = await whole_of(made(), make())
    for at in range(drive.fate.steps - before):
        for after in (False, True):
            mortal = made()
            await mortal.dispatch(make())
            mortal.fate = Fate(at, after=after)
            await mortal.run()
            found = await mortal.summary()
            found["published"] = sorted(its_id.removeprefix(mortal.workflow) for its_id in found["published"])
            assert found == expected, f"died {'after' if after else 'before'} step {at}"


@pytest.mark.parametrize("story", STORIES)
async def test_it_is_the_same_where_an_end_is_found_out_and_not_settled(made: Callable[[], Drive], story: str) -> None:
    make, _, _ = STORIES[story]
    expected = await whole_of(made(), make())
    for number in range(len(expected["published"])):
        repeated: list[str] = []

        drive = made()
        found = await whole_of(drive, make(), again=once(drive, number, repeated))
        assert found == expected, f"job {number} was repeated"
        assert repeated


async def test_a_long_chain_is_not_skipped_link_by_link(made: Callable[[], Drive]) -> None:
    drive = made()
    await drive.dispatch(Chain([bad.s(), *[ok.s() for _ in range(2000)]]))
    before = drive.fate.steps
    await drive.run()
    whole = await drive.whole()
    assert (whole.state, whole.status, whole.open) == ("finished", "failed", 0)
    assert all(node.status for node in await drive.nodes())
    assert drive.fate.steps - before < 50


async def test_an_id_may_be_used_again_for_another_workflow(made: Callable[[], Drive]) -> None:
    """A worker that saw a part of the first one remembers its plan, and must not take it for that of the second."""
    drive = made()
    extension = drive.fresh()
    await drive.dispatch(Group([ok.s(), Chain([ok.s(), ok.s(), ok.s()])]), workflow="again")
    first = drive.waiting.pop("again.1")
    drive.waiting, others = {"again.1": first}, drive.waiting
    await drive.run(extension=extension)
    drive.waiting.update(others)
    await drive.run()
    assert (await drive.whole()).state == "finished"
    await drive.store.delete(["again"])
    drive.records.clear()
    drive.known.clear()
    await drive.dispatch(Chain([ok.s(), ok.s()]), workflow="again")
    await drive.run(extension=extension)
    assert (await drive.whole()).state == "finished"
    value = drive.records["again"].value
    assert value is not None
    assert app.result_codec.decode_value(value) == "again.1"  # the last link's
