"""Workflows under fire: workers and the server are killed, and each comes to its end, and to one result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from camora import Camora
from camora.errors import DispatchUncertain, JobFailed
from camora_workflows import Chain, Chord, FailedStep, Group, WorkflowJob

from tests.faults.rig import Rig, eventually

_MEMBERS = 6
_LINKS = 5


class Flows:
    """What is composed; the functions run in the workers' processes."""

    def __init__(self, rig: Rig, app: Camora) -> None:
        self._rig = rig

        @app.task(name="work")
        async def work(number: int) -> int:
            raise AssertionError

        @app.task(name="add_one")
        async def add_one(number: int) -> int:
            raise AssertionError

        @app.task(name="add_up")
        async def add_up(numbers: list[int]) -> int:
            raise AssertionError

        @app.task(name="refuse")
        async def refuse(number: int) -> int:
            raise AssertionError

        @app.task(name="regret")
        async def regret(failed: FailedStep) -> str:
            raise AssertionError

        self._work, self._add_one, self._add_up, self._refuse, self._regret = work, add_one, add_up, refuse, regret

    async def all(self, name: str) -> list[WorkflowJob[Any]]:
        """Some of every kind, under ids that begin with the name."""
        made = []
        for number in range(3):
            for kind, compose in (("chord", self._chord), ("chain", self._chain), ("failing", self._failing)):
                made.append(await self._dispatched(compose(), f"{name}-{kind}-{number}"))
        return made

    def _chord(self) -> Any:
        return Chord(Group([self._work.s(number) for number in range(_MEMBERS)]), self._add_up.s())

    def _chain(self) -> Any:
        # The last but one is a fan-out, which opens where nobody dispatches.
        return Chain([self._work.s(0), *(self._add_one.s() for _ in range(_LINKS)), self._fan(), self._add_up.s()])

    def _fan(self) -> Any:
        return Group([self._add_one.s() for _ in range(2)])

    def _failing(self) -> Any:
        failing = Chord(Group([self._work.s(1), self._refuse.s(2)]), self._add_up.s())
        failing.on_failure = self._regret.s()
        return failing

    async def _dispatched(self, what: Any, its_id: str) -> WorkflowJob[Any]:
        while True:
            try:
                found: WorkflowJob[Any] = await what.options(job_id=its_id).dispatch()
            except DispatchUncertain:
                continue
            return found

    async def ended(self, jobs: list[WorkflowJob[Any]]) -> None:
        """All have come to what they are to come to; what has run of them is the ledger's to ask for."""
        for job in jobs:
            if "-failing-" in job.id:
                with pytest.raises(JobFailed, match="ValueError: 2"):
                    await job.result(timeout=60)
                ends = {"work": "succeeded", "refuse": "failed", "add_up": "skipped", "regret": "succeeded"}
            else:
                chord = "-chord-" in job.id
                assert await job.result(timeout=60) == (sum(range(_MEMBERS)) if chord else 2 * (_LINKS + 1))
                ends = dict.fromkeys(("work", "add_one", "add_up"), "succeeded")
            await eventually(self._final(job), f"the end of {job.id}")
            async for member in job.members():
                assert member.status == ends[member.task], member
                if member.status != "skipped":
                    self._rig.dispatched.append(member.id)

    def _final(self, job: WorkflowJob[Any]) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return not [member async for member in job.members() if member.status in ("waiting", "queued")]

        return look


async def test_workflows_come_to_their_ends_though_workers_and_the_server_are_killed(rig: Rig) -> None:
    for _ in range(2):
        rig.worker("--concurrency", "3").ready()
    async with rig.app() as app:
        flows = Flows(rig, app)
        first = asyncio.create_task(flows.all("first"))
        for count in (5, 15):
            await _has_run(rig, count)
            rig.workers.pop(0).process.kill()
            rig.faults += 1
            rig.worker("--concurrency", "3")
        jobs = await first
        late = asyncio.create_task(flows.all("late"))
        await _has_run(rig, rig.finished() + 5)
        rig.server.kill()
        rig.faults += 1
        await rig.noticed(*rig.workers)
        await asyncio.to_thread(rig.server.start)
        jobs += await late
        await flows.ended(jobs)
    # What was running, or about to be settled, when something was killed.
    await rig.balance(duplicates=2 * 3 + 2 * 2 * 3)
    rig.alive()


async def _has_run(rig: Rig, count: int) -> None:
    await eventually(lambda: rig.finished() >= count, f"the end of {count} runs")
