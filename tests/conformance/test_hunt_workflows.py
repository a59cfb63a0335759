"""The hunts for stores of workflows and journals can fail: in broken ones they find the fault, each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest
from camora.builtin.memory import MemoryJournal, MemoryStore, MemoryWorkflowStore
from camora.interfaces.workflows import Mark, Marked, NodeState
from camora.testing.conformance import hunt_journals, hunt_workflows
from hypothesis import Phase

EXAMPLES = 400
"""Enough to find each of them; the same in each run."""


class CountsEnds(MemoryWorkflowStore):
    """A mark that is repeated counts once more, as a counter would have it."""

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        answers = await super().end(marks, now)
        return [
            msgspec.structs.replace(one, open=max(0, one.open - 1)) if one.standing is not None else one
            for one in answers
        ]


class ForgetsRepetitions(MemoryWorkflowStore):
    """Whoever repeats a mark hears nothing of what is to follow."""

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        answers = await super().end(marks, now)
        return [msgspec.structs.replace(one, targets=()) if one.standing is not None else one for one in answers]


class EndsOneByOne(MemoryWorkflowStore):
    """Answers each mark as things were before the next one of its batch."""

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        return [answer for mark in marks for answer in await super(EndsOneByOne, self).end([mark], now)]


class TakesAnyRun(MemoryWorkflowStore):
    """An attempt from before a node was reopened ends it all the same."""

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        current = []
        for mark in marks:
            [node] = await self.read(mark.workflow, [mark.index])
            current.append(mark if node is None else msgspec.structs.replace(mark, run=node.run))
        return await super().end(current, now)


class FinishesEarly(MemoryWorkflowStore):
    """Says that all is over while something is open."""

    async def finish(self, workflow_id: str, status: str, keep: float, now: int) -> bool:
        found = await self.get(workflow_id)
        return await super().finish(workflow_id, status, keep, now) or (found is not None and found.state == "running")


class KeepsWhatWasPassed(MemoryWorkflowStore):
    """A gate that is reopened is not passed anew."""

    async def passed(self, workflow_id: str, gate: int, index: int, now: int, run: int = 0) -> None:
        for number in range(4):
            await super().passed(workflow_id, gate, index, now, number)


class ReopensAnyRun(MemoryWorkflowStore):
    """Whoever saw an earlier run fail reopens the one that came after it."""

    async def reopen(self, workflow_id: str, runs: Mapping[int, int], now: int) -> bool:
        found = await self.read(workflow_id, list(runs))
        current = {node.index: node.run for node in found if node is not None}
        return await super().reopen(workflow_id, {**runs, **current}, now)


class ReopensSome(MemoryWorkflowStore):
    """Reopens those that stand as they were seen, though others do not."""

    async def reopen(self, workflow_id: str, runs: Mapping[int, int], now: int) -> bool:
        said = [await super(ReopensSome, self).reopen(workflow_id, {index: run}, now) for index, run in runs.items()]
        return bool(said) and all(said)


class MissesTheLastOfAPage(MemoryWorkflowStore):
    """Pages are one too short where there is more."""

    async def nodes(self, workflow_id: str, *, limit: int = 500, **more: object) -> Sequence[NodeState]:
        page = await super().nodes(workflow_id, limit=limit, **more)  # type: ignore[arg-type]
        return page[:-1] if len(page) == limit > 1 else page


class Unfenced(MemoryJournal):
    """Whoever was overtaken writes on."""

    async def write(self, job_id: str, token: int, name: str, value: bytes, keep: float) -> bytes | None:
        return await super().write(job_id, max(token, 4), name, value, keep)


class Overwrites(MemoryJournal):
    """The last value stands."""

    async def write(self, job_id: str, token: int, name: str, value: bytes, keep: float) -> bytes | None:
        found = await super().write(job_id, token, name, value, keep)
        return None if found is None else value


class ForgetsPosts(MemoryJournal):
    """A repeated post is another one."""

    async def post(self, job_id: str, name: str, value: bytes, keep: float, post_id: str) -> int:
        return await super().post(job_id, name, value, keep, f"{post_id} {len(await self.read(job_id))}")


class TellsAll(MemoryJournal):
    """A refused claim is told what there is."""

    async def claim(self, job_id: str, token: int, keep: float) -> Mapping[str, bytes] | None:
        found = await super().claim(job_id, token, keep)
        return await self.read(job_id) if found is None else found


@pytest.mark.parametrize(
    "kind",
    [
        CountsEnds,
        ForgetsRepetitions,
        EndsOneByOne,
        TakesAnyRun,
        FinishesEarly,
        KeepsWhatWasPassed,
        ReopensAnyRun,
        ReopensSome,
        MissesTheLastOfAPage,
    ],
)
def test_a_broken_store_of_workflows_is_found(kind: type[MemoryWorkflowStore]) -> None:
    with pytest.raises(AssertionError):
        hunt_workflows(
            lambda: kind(MemoryStore()), examples=EXAMPLES, derandomize=True, phases=(Phase.generate,),
            report_multiple_bugs=False,
        )  # fmt: skip


@pytest.mark.parametrize("kind", [Unfenced, Overwrites, ForgetsPosts, TellsAll])
def test_a_broken_journal_is_found(kind: type[MemoryJournal]) -> None:
    with pytest.raises(AssertionError):
        hunt_journals(
            lambda: kind(MemoryStore()), examples=EXAMPLES, derandomize=True, phases=(Phase.generate,),
            report_multiple_bugs=False,
        )  # fmt: skip
