"""Random compositions on real workers, under an enemy of broker, results and workflows: they come to what they mean."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from camora import Camora, Context, Discard, Failure, Retry, WorkerSettings, inject, plugins
from camora.errors import BrokerUnavailable, DispatchError, DispatchUncertain, JobDiscarded, JobExpired, JobFailed
from camora.interfaces import WorkflowRecord
from camora.testing.clock import VirtualClock
from camora.testing.seeded import seeded_chance
from camora_workflows import FailedStep, WorkflowJob
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.workflows.nemesis import Nemesis, NotingStore, Process, ProcessBroker, ProcessResults
from tests.workflows.trees import FAILED_STEP, OK, Meaning, Tree, built, trees
from tests.workflows.virtual_loop import VirtualLoop, run_virtually

QUIET = logging.getLogger("tests.random_graphs")
QUIET.disabled = True

CATALOG = plugins.load()
"""Looked up once: these processes have the same plugins installed."""
WORKERS = 2
REFUSALS = {"failed": JobFailed, "expired": JobExpired, "discarded": JobDiscarded}
LIMIT = 24 * 3600.0
"""Virtual seconds after which a workflow that has not ended never will."""


class World:
    """A store, the processes on it, and what was run."""

    def __init__(self, loop: VirtualLoop, nemesis: Nemesis) -> None:
        self.loop = loop
        self.nemesis = nemesis
        self.store = NotingStore(loop.clock)
        self.runs: list[tuple[int, list[Any]]] = []
        self.items: list[int] = []
        self.workers: list[tuple[Process, Camora, Any]] = []
        self.healed = False
        """What failed before succeeds from now on."""
        self._names = 0
        loop.before_step = self._keep_leases

    def app(self, process: Process) -> Camora:
        """What a process runs."""
        app = Camora(
            ProcessBroker(self.store, process),
            results=ProcessResults(self.store, process),
            clock=self.loop.clock,
            logger=QUIET,
            catalog=CATALOG,
        )

        @app.task(name="leaf")
        async def leaf(*given: Any, ctx: Context = inject()) -> Any:
            *came, label, end = given
            if process.dead:
                return None
            self.runs.append((label, [FAILED_STEP if _is_failed_step(one) else one for one in came]))
            await asyncio.sleep(0.05)
            match end:
                case "fail" | "failure" if self.healed:
                    pass
                case "fail":
                    raise ValueError("no")
                case "failure":
                    return Failure("no")
                case "discard":
                    raise Discard
                case "retry" if ctx.attempt == 1:
                    raise Retry(delay=3.0)
            return [*[FAILED_STEP if _is_failed_step(one) else one for one in came], label]

        @app.task(name="each")
        async def each(item: int) -> int:
            if not process.dead:
                self.items.append(item)
            return item

        return app

    def process(self, kind: str, nemesis: Nemesis | None = None) -> Process:
        self._names += 1
        return Process(f"{kind}-{self._names}", nemesis or self.nemesis)

    async def hire(self) -> None:
        """One more worker."""
        process = self.process("worker")
        app = self.app(process)
        # A job that was near when processes died is no poison here.
        limits = WorkerSettings(max_deliveries=1000, isolate_after=900, concurrency=4, prefetch=2)
        worker = app.make_worker(settings=limits)
        await worker.start()
        self.workers.append((process, app, worker))

    async def look_after(self) -> None:
        """Clear the dead away, and hire others."""
        for one in [one for one in self.workers if one[0].dead]:
            self.workers.remove(one)
            await self._dismiss(one)
            await self.hire()

    async def _dismiss(self, one: tuple[Process, Camora, Any]) -> None:
        process, app, worker = one
        process.dead = True
        await worker.close()
        await app.close()

    async def close(self) -> None:
        while self.workers:
            await self._dismiss(self.workers.pop())

    def _keep_leases(self) -> None:
        """What the threads of the living do, in virtual time."""
        for process, _, worker in self.workers:
            if process.dead or process.starved_until > self.loop.time():
                continue
            for lane in worker._lanes:
                self.store.extend(list(lane._keeper._held))

    async def careful(self, act: Callable[[Camora], Awaitable[Any]], *, gives_up: bool = False) -> bool:
        """Do it as a careful caller does; False when it gave up after the first trouble, and knows nothing."""
        process = self.process("client")
        app = self.app(process)
        try:
            while True:
                try:
                    await act(app)
                except (BrokerUnavailable, DispatchUncertain, DispatchError):
                    if not self.nemesis.told:
                        raise
                    if gives_up:
                        return False
                    if process.dead:
                        await app.close()
                        process = self.process("client")
                        app = self.app(process)
                    await asyncio.sleep(1.0)
                else:
                    return True
        finally:
            process.dead = True
            await app.close()

    async def dispatch(self, tree: Tree, *, gives_up: bool = False) -> bool:
        async def dispatch(app: Camora) -> None:
            what = built(tree, app.tasks.get("leaf"), app.tasks.get("each"))
            await app.dispatch(what.options(job_id="w"))

        return await self.careful(dispatch, gives_up=gives_up)

    def whole(self) -> WorkflowRecord | None:
        return self.store.graphs.get("w", self.loop.clock.monotonic())

    async def until_over(self) -> None:
        """Until the workflow has finished, or is known to nobody, and no job is left."""
        until = self.loop.time() + LIMIT
        while self._is_open():
            assert self.loop.time() < until, f"it never ended: {self._stuck()}"
            await asyncio.sleep(1.0)
            await self.look_after()

    def _is_open(self) -> bool:
        whole = self.whole()
        return (whole is not None and whole.state != "finished") or bool(self._left())

    def _left(self) -> list[str]:
        return [its_id for its_id in self.store.entries if its_id not in self.store.letters]

    def _stuck(self) -> str:
        nodes = self.store.graphs.nodes(
            "w", self.loop.time(), after=-1, limit=100, feeding=None, gate=None, unfinished=True, unsuccessful=False
        )
        return f"{self.whole()}, open: {[(one.index, one.waiting) for one in nodes]}, jobs: {self._left()}"


def _is_failed_step(what: Any) -> bool:
    return isinstance(what, FailedStep) or (isinstance(what, dict) and "error_type" in what)


async def story(loop: VirtualLoop, tree: Tree, nemesis: Nemesis, *, gives_up: bool = False) -> None:
    world, faults = World(loop, nemesis), nemesis.left
    try:
        for _ in range(WORKERS):
            await world.hire()
        dispatched = await world.dispatch(tree, gives_up=gives_up)
        await world.until_over()
        try:
            await check(world, tree, faults=faults, dispatched=dispatched)
        except AssertionError as error:
            error.add_note("what went wrong: " + "; ".join(world.nemesis.told or ["nothing"]))
            raise
    finally:
        await world.close()


def handle(app: Camora) -> WorkflowJob[Any]:
    composer: Any = app.composer
    return WorkflowJob("w", "w", composer._host(), composer._following())


async def check(world: World, tree: Tree, *, faults: int, dispatched: bool) -> None:
    meaning = Meaning(tree)
    whole = world.whole()
    if whole is None:
        assert not dispatched, "what was dispatched is gone"
        assert not world.runs, "it never started, and ran"
        return
    check_once(world)
    # Who ran, and with what.
    assert {label for label, _ in world.runs} == set(meaning.runs)
    for label, came in world.runs:
        assert came == meaning.runs[label], f"{label} was given {came}"
    assert sorted(set(world.items)) == sorted(meaning.items)
    if not faults:
        again = {leaf.label for leaf in tree.leaves() if leaf.end == "retry"}
        for label in meaning.runs:
            times = sum(one == label for one, _ in world.runs)
            assert times == 1 + (label in again), f"{label} ran {times} times"
        assert len(world.items) == len(meaning.items)
    # What it came to.
    assert whole.status == meaning.status
    await check_result(world, meaning)


def check_once(world: World) -> None:
    """One standing end for each run of a node, and each job in the broker once."""
    assert {len(marks) for marks in world.store.marked.values()} <= {1}
    assert set(world.store.stored.values()) <= {1}, world.store.stored


async def check_result(world: World, meaning: Meaning) -> None:
    app = world.app(world.process("reader", Nemesis(0, 0)))
    async with app:
        job = handle(app)
        record = (await app.results.fetch(["w"]))[0] if app.results is not None else None
        assert record is not None, "nobody is told what it came to"
        assert record.status.value == meaning.status
        if meaning.status == OK:
            assert await job.result(0) == meaning.value
        else:
            with pytest.raises(REFUSALS[meaning.status]):
                await job.result(0)


async def mended(loop: VirtualLoop, tree: Tree, nemesis: Nemesis) -> None:
    """What failed is retried until nothing fails any more, and then the whole comes to what it means without that."""
    world = World(loop, nemesis)
    try:
        for _ in range(WORKERS):
            await world.hire()
        await world.dispatch(tree)
        await world.until_over()
        world.healed = True
        for _ in range(20):
            await world.careful(lambda app: handle(app).retry())
            await world.until_over()
            nodes = world.store.graphs.nodes(
                "w", loop.time(), after=-1, limit=1000, feeding=None, gate=None, unfinished=False, unsuccessful=False
            )
            if not any(node.status == "failed" for node in nodes):
                break
        try:
            check_once(world)
            meaning = Meaning(tree.healed())
            last = dict(world.runs)
            assert {label: last.get(label) for label in meaning.runs} == meaning.runs
            assert set(meaning.items) <= set(world.items)
            await check_result(world, meaning)
        except AssertionError as error:
            error.add_note("what went wrong: " + "; ".join(nemesis.told or ["nothing"]))
            raise
    finally:
        await world.close()


async def cancelled(loop: VirtualLoop, tree: Tree, nemesis: Nemesis, after: float) -> None:
    """Somebody cancels it on the way: it ends, as cancelled, or as it would have by itself."""
    world = World(loop, nemesis)
    try:
        for _ in range(WORKERS):
            await world.hire()
        await world.dispatch(tree)
        await asyncio.sleep(after)
        await world.careful(lambda app: handle(app).cancel())
        await world.until_over()
        try:
            check_once(world)
            meaning, whole = Meaning(tree), world.whole()
            assert whole is not None
            assert whole.status in ("cancelled", meaning.status)
            for label, came in world.runs:
                assert came == meaning.runs.get(label, came), f"{label} was given {came}"
            if whole.status != "cancelled":
                await check_result(world, meaning)
        except AssertionError as error:
            error.add_note("what went wrong: " + "; ".join(nemesis.told or ["nothing"]))
            raise
    finally:
        await world.close()


def told(tree: Tree, *, seed: int = 0, faults: int = 0, gives_up: bool = False) -> None:
    with seeded_chance(seed):
        run_virtually(VirtualClock(), lambda loop: story(loop, tree, Nemesis(seed, faults), gives_up=gives_up))


hunted = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@given(tree=trees())
@settings(hunted, max_examples=25)
def test_a_composition_comes_to_what_it_means(tree: Tree) -> None:
    told(tree)


# What was found once. Chance goes other ways when more or fewer calls are made, so this may say less one day.
NO_JOBS = Tree(
    "chord", [Tree("graph", [Tree("chunks")], after=[[]], on_failure=Tree("map", size=2))]
).numbered()  # fmt: skip


@given(
    tree=trees(most=8),
    seed=st.integers(0, 2**32),
    faults=st.integers(1, 12),
    gives_up=st.sampled_from([False, False, True]),
)
@example(tree=NO_JOBS, seed=1_187_917_191, faults=7, gives_up=False)
@settings(hunted, max_examples=25)
def test_a_composition_comes_to_the_same_whatever_fails(tree: Tree, seed: int, faults: int, *, gives_up: bool) -> None:
    told(tree, seed=seed, faults=faults, gives_up=gives_up)


class NoRecords(Nemesis):
    """Whatever is stored among the results fails at first."""

    def fate(self, what: str, process: Process) -> str:
        if what != "store" or not self.left:
            return ""
        self.left -= 1
        self.told.append(f"{process.name}: {what} fails")
        return "fails"


def test_a_chunk_does_not_fail_because_its_progress_cannot_be_told() -> None:
    tree = Tree("chord", [Tree("chunks", size=5), Tree("chunks", size=4)]).numbered()
    nemesis = NoRecords(0, 3)
    run_virtually(VirtualClock(), lambda loop: story(loop, tree, nemesis))
    assert not nemesis.left


@given(tree=trees(end="fail", most=8), seed=st.integers(0, 2**32), faults=st.integers(0, 8))
@settings(hunted, max_examples=12)
def test_what_failed_can_be_tried_again_whatever_fails(tree: Tree, seed: int, faults: int) -> None:
    with seeded_chance(seed):
        run_virtually(VirtualClock(), lambda loop: mended(loop, tree, Nemesis(seed, faults)))


@given(tree=trees(most=8), seed=st.integers(0, 2**32), faults=st.integers(0, 8), after=st.floats(0, 4))
@settings(hunted, max_examples=12)
def test_what_is_cancelled_ends_whatever_fails(tree: Tree, seed: int, faults: int, after: float) -> None:
    with seeded_chance(seed):
        run_virtually(VirtualClock(), lambda loop: cancelled(loop, tree, Nemesis(seed, faults), after))
