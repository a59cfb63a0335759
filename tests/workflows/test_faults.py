"""Real processes are killed and frozen in the middle of workflows."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora_workflows.compose import Chain, Chord, Group
from camora_workflows.composer import workflow
from processes import WorkerProcess, freeze_between_writes, shared, until

from tests import forked

APPS = Path(__file__).parent / "apps"


class FlowWorker(WorkerProcess):
    """`camora worker flows:app`."""

    cwd = APPS


@pytest.fixture
def start() -> Iterator[Callable[..., WorkerProcess]]:
    made: list[WorkerProcess] = []

    def start_one(folder: Path, url: str, **environment: str) -> WorkerProcess:
        made.append(FlowWorker(folder, url, "--concurrency", "2", app="flows:app", **environment))
        return made[-1]

    try:
        yield start_one
    finally:
        for worker in made:
            worker.destroy()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return shared(request.param, tmp_path)


@pytest.fixture
def one_url(tmp_path: Path) -> str:
    """For what is the same whatever the store is."""
    return shared("sqlite", tmp_path)


class Flows:
    """The app's tasks by their names, as another program dispatches them."""

    def __init__(self, url: str, results: str | None = None) -> None:
        self.app = app = Camora(url, results=results, name="flows")

        @app.task(name="member")
        async def member(number: int) -> int:
            raise AssertionError

        @app.task(name="start")
        async def start() -> int:
            raise AssertionError

        @app.task(name="body")
        async def body(values: list[int]) -> int:
            raise AssertionError

        @app.task(name="freezing")
        async def freezing(number: int) -> int:
            raise AssertionError

        self.member, self.start, self.body, self.freezing = member, start, body, freezing


def ran(folder: Path) -> Counter[str]:
    """How often each function ran, by its name and number."""
    found = [path.name.rpartition("-")[0] for path in folder.iterdir()]
    return Counter(name for name in found if name.partition("-")[0] in ("member", "start", "body", "freezing"))


def once(*names: str) -> Counter[str]:
    return Counter(names)


def dispatcher(folder: Path, url: str, what: str, crash: str = "") -> None:
    """Dispatch a chord of twelve in a process of its own, which dies of it."""
    environment = {"SHOP_FOLDER": str(folder), "SHOP_BROKER": url, "SHOP_CRASH": crash}
    done = forked.run(
        [sys.executable, "flows.py", "dispatching", what],
        cwd=APPS, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("point", ["marked", "settled"])
async def test_a_worker_dies_around_the_settlement_of_a_member(
    url: str, tmp_path: Path, start: Callable[..., WorkerProcess], point: str
) -> None:
    """What had run does not run again: its end is known before it is settled."""
    flows = Flows(url)
    async with flows.app:
        job = await Chord(Group([flows.member.s(number) for number in range(4)]), flows.body.s()).dispatch()
        assert start(tmp_path, url, SHOP_CRASH=point).end() == -signal.SIGKILL
        start(tmp_path, url)
        assert await job.result(timeout=60) == 6
    assert ran(tmp_path) == once("body-0", *(f"member-{number}" for number in range(4)))


async def test_a_worker_dies_in_the_middle_of_a_fan_out(
    one_url: str, tmp_path: Path, start: Callable[..., WorkerProcess]
) -> None:
    """A page of members was published, and the others not yet."""
    url = one_url
    flows = Flows(url)
    async with flows.app:
        members = Group([flows.member.si(number) for number in range(12)])
        job = await Chain([flows.start.s(), members, flows.body.s()]).dispatch()
        assert start(tmp_path, url, SHOP_CRASH="fanning out").end() == -signal.SIGKILL
        start(tmp_path, url)
        assert await job.result(timeout=60) == sum(range(12))
    found = ran(tmp_path)
    assert (found["start-0"], found["body-0"]) == (1, 1)
    # Two members of the first page may have run in the worker that died.
    assert {f"member-{number}" for number in range(12)} <= found.keys()
    assert found.total() <= 2 + 12 + 2


async def test_a_dispatcher_dies_while_it_records(one_url: str, tmp_path: Path) -> None:
    """Nothing has begun, and nothing will."""
    dispatcher(tmp_path, one_url, "recording")
    flows = Flows(one_url)
    async with flows.app:
        store = await workflow_store(flows.app)
        record = await store.get("dying")
        assert record is not None
        assert (record.state, record.nodes > 0) == ("recording", True)
        assert not any(sum(states.values()) for states in (await flows.app.broker.queues.counts()).values())


async def test_a_dispatcher_dies_while_it_publishes(
    url: str, tmp_path: Path, start: Callable[..., WorkerProcess]
) -> None:
    """It has started, so it will be finished: a worker finds it, and goes on."""
    dispatcher(tmp_path, url, "publishing", "publishing")
    flows = Flows(url)
    async with flows.app:
        store = await workflow_store(flows.app)
        record = await store.get("dying")
        assert record is not None
        assert record.state == "running"
        start(tmp_path, url)
        assert await workflow(flows.app, "dying").result(timeout=60) == sum(range(12))
    assert ran(tmp_path) == once("body-0", *(f"member-{number}" for number in range(12)))


async def test_a_worker_freezes_and_its_member_is_run_by_another(
    url: str, tmp_path: Path, start: Callable[..., WorkerProcess]
) -> None:
    """Both run it, for nobody can know; the body runs once, and there is one result."""
    flows = Flows(url)
    async with flows.app:
        job = await Chord(Group([flows.freezing.s(1), flows.member.s(2)]), flows.body.s()).dispatch()
        frozen = start(tmp_path, url)
        until((tmp_path / "frozen").exists, "the member that freezes")
        if url.startswith("sqlite"):
            freeze_between_writes(frozen, tmp_path / "camora.db")
        else:
            frozen.signal(signal.SIGSTOP)
        other = start(tmp_path, url)
        assert await job.result(timeout=60) == 3
        (tmp_path / "go").touch()
        frozen.signal(signal.SIGCONT)
        until(lambda: any("lost" in line or "not ours" in line for line in frozen.lines), "the late settlement")
        for worker in (frozen, other):
            worker.signal(signal.SIGTERM)
            worker.end()
        assert await job.result(timeout=60) == 3
    found = ran(tmp_path)
    assert (found["freezing-1"], found["body-0"]) == (2, 1)
    # The other member may have just been running, too, when its worker froze.
    assert found["member-2"] in (1, 2)


async def workflow_store(app: Camora) -> Any:
    return await (await app.composer._host().stores()).workflows()  # type: ignore[attr-defined]
