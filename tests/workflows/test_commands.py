"""`camora workflow …`: what was left half-way is found and mended; what is shown is read aloud."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from camora import Camora
from camora.cli.main import main
from camora.errors import JobFailed, UnsupportedCapability
from camora.interfaces import WorkflowRecord
from camora_workflows import Graph, chain, chord, group, workflow
from camora_workflows.recording import Recorder

SHOP = """
import os
from pathlib import Path
from camora import Camora

HERE = Path(__file__).parent
app = Camora(f"sqlite:///{HERE}/camora.db")

@app.task(name="add", queue="sums")
async def add(x: int, y: int) -> int:
    return x + y

@app.task(name="double")
async def double(x: int) -> int:
    return 2 * x

@app.task(name="total")
async def total(numbers: list[int]) -> int:
    return sum(numbers)

@app.task(name="check")
async def check(x: int) -> int:
    if not (HERE / "mended").exists():
        raise ValueError(f"no luck with {x}")
    return x

@app.task(name="alert")
async def alert(what: str) -> None: ...
"""


@attrs.frozen
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module with an app, on a database of its own."""
    (tmp_path / "shop_of_test.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shop_of_test")
    del sys.modules["shop_of_test"]


@pytest.fixture
def command(shop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`camora …`, in this process."""

    def run(*words: str, width: int = 120) -> Done:
        capsys.readouterr()
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        code = 0
        try:
            main([*words, "--app", "shop_of_test:app"])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def camora(command: Run) -> Run:
    """`camora workflow …`, in this process."""
    return functools.partial(command, "workflow")


def dispatched(shop: Any, what: Any) -> str:
    async def work() -> str:
        async with shop.app:
            return (await what.dispatch()).id

    return asyncio.run(work())


def worked(shop: Any) -> None:
    """Run all that is due, and what follows from that."""
    asyncio.run(shop.app.start(burst=True))


def comes_to(shop: Any, its_id: str) -> Any:
    async def work() -> Any:
        async with shop.app:
            return await workflow(shop.app, its_id).result(60)

    return asyncio.run(work())


def does(shop: Any, work: Callable[[Camora], Any]) -> Any:
    async def inside() -> Any:
        async with shop.app as app:
            return await work(app)

    return asyncio.run(inside())


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


# Showing


def test_a_chain_before_between_and_after(shop: Any, camora: Run) -> None:
    its_id = dispatched(shop, shop.add.s(1, 2) >> shop.double.s() >> shop.double.s())
    shown = lines(camora("show", its_id).out)
    assert shown[0] == f"chain {its_id}: running"
    assert shown[1] == "add.s() >> double.s() >> double.s()"
    assert shown[2].startswith("begun ")
    assert shown[2].endswith("0 of 3 nodes have ended")
    assert shown[3:] == ["├── ○ add #0  queued", "├── · double #1  waits", "└── · double #2  waits"]
    worked(shop)
    shown = lines(camora("show", its_id).out)
    assert shown[0] == f"chain {its_id}: succeeded"
    assert ", took " in shown[2]
    assert [line.partition(", in ")[0] for line in shown[3:]] == [
        "├── ✓ add #0  succeeded",
        "├── ✓ double #1  succeeded",
        "└── ✓ double #2  succeeded",
    ]


def test_what_failed_and_what_came_of_it(shop: Any, camora: Run) -> None:
    middle = group(shop.double.s(), shop.check.s(), shop.double.s() >> shop.double.s())
    its_id = dispatched(shop, chain(shop.add.s(1, 2), middle, shop.total.s(), on_failure=shop.alert.si("oh")))
    worked(shop)
    shown = [line.partition(", in ")[0] for line in lines(camora("show", its_id).out)]
    assert shown[0] == f"chain {its_id}: failed"
    assert shown[3:] == [
        "├── ✓ add #0  succeeded",
        "├── ✗ group of 3  2 succeeded, 1 failed",
        "│   ├── ✓ double #5  succeeded",
        "│   ├── ✗ check #6  failed",
        "│   │   └── ValueError: no luck with 3",
        "│   └── one after the other",
        "│       ├── ✓ double #7  succeeded",
        "│       └── ✓ double #8  succeeded",
        "└── ∅ total #3  skipped: #6 failed",
        "    └── on failure: ✓ alert #4  succeeded",
    ]


def test_a_graph(shop: Any, camora: Run) -> None:
    graph = (
        Graph()
        .add("a", shop.add.s(1, 2))
        .add("b", shop.double.s(), after=["a"])
        .add("c", group(shop.double.s(), shop.double.s()), after=["a"])
        .add("d", shop.total.si([1]), after=["b", "c"], on_failure=shop.alert.si("oh"))
    )
    its_id = dispatched(shop, graph)
    worked(shop)
    shown = [line.partition(", in ")[0] for line in lines(camora("show", its_id).out)]
    assert shown[0] == f"graph {its_id}: succeeded"
    assert shown[3] == "└── ✓ graph of 4  succeeded"
    assert [line.strip("│├└─ ").split(" #")[0] for line in shown[4:]] == [
        "✓ a: add",
        "✓ b: double",
        "✓ c: group of 2  2 succeeded",
        "✓ double",
        "✓ double",
        "✓ d: total",
        "on failure: ∅ alert",
    ]
    after = [line for line in lines(camora("show", its_id).out) if " d: total" in line]
    assert after[0].endswith("after b, c")


def test_large_groups_are_folded(shop: Any, camora: Run) -> None:
    members = [shop.check.s(number) if number == 17 else shop.double.s(number) for number in range(30)]
    its_id = dispatched(shop, chord(members, shop.total.s()))
    worked(shop)
    shown = [line.partition(", in ")[0] for line in lines(camora("show", its_id).out)]
    assert shown[3:] == [
        "├── ✗ group of 30  29 succeeded, 1 failed",
        "│   ├── ✗ check #19  failed",
        "│   │   └── ValueError: no luck with 17",
        "│   └── … and 29 more (--all)",
        "└── ∅ total #1  skipped: #19 failed",
    ]
    everything = lines(camora("show", its_id, "--all").out)
    assert len([line for line in everything if "✓ double" in line]) == 29
    data = json.loads(camora("show", its_id, "--json").out)
    assert [data["id"], data["kind"], data["state"], data["status"]] == [its_id, "chord", "finished", "failed"]
    states = [node["state"] for node in data["nodes"] if node["kind"] == "job"]
    assert sorted(set(states)) == ["failed", "skipped", "succeeded"]
    [failed] = [node for node in data["nodes"] if node["state"] == "failed" and node["kind"] == "job"]
    assert failed["job"] == f"{its_id}.19"
    assert failed["error"] == "ValueError: no luck with 17"
    assert failed["finished"].endswith("+00:00")


def test_what_is_not_there(camora: Run) -> None:
    for words in (["show"], ["recover"], ["cancel"], ["retry"]):
        done = camora(*words, "nonsense")
        assert done.code == 3, words
        assert "there is no workflow nonsense: it never was, it was purged" in done.err
        assert done.out == ""


def test_ids_of_jobs_and_of_workflows_are_told_apart(shop: Any, command: Run) -> None:
    its_id = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    whole, waiting = f"{its_id}: it is a workflow, not a job", f"{its_id}.1: it is a part of workflow {its_id} of which"
    for words, rest in ((["job", "show"], []), (["job", "signal"], ["go"])):
        for one, told in ((its_id, whole), (f"{its_id}.1", waiting)):
            done = command(*words, one, *rest)
            assert done.code == 3
            assert told in done.err
            assert f"camora workflow show {its_id} shows its jobs" in done.err
    done = command("why", its_id, width=200)
    assert "it is a workflow, not a job" in done.out
    assert f"camora workflow show {its_id}" in done.out
    assert command("why", "nonsense").code == 3
    done = command("workflow", "show", f"{its_id}.0")
    assert (done.code, done.out) == (3, "")
    assert f"{its_id}.0 looks like the id of a job of workflow {its_id}" in done.err


def test_a_list(shop: Any, camora: Run) -> None:
    assert camora("list").out == "there are no workflows\n"
    one = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    worked(shop)
    other = dispatched(shop, group(shop.add.s(1, 2), shop.add.s(3, 4)))
    shown = lines(camora("list").out)
    assert shown[0].split() == ["workflow", "state", "ended", "begun", "changed", "what"]
    assert shown[1].split()[:5] == [one, "succeeded", "2", "of", "2"]
    assert shown[2].split()[:5] == [other, "running", "0", "of", "3"]
    assert shown[2].endswith("group(add.s(), add.s())")
    narrow = camora("list", width=60).out
    assert one in narrow, "an id is never cut"
    assert other in narrow
    assert [found["id"] for found in json.loads(camora("list", "--state", "running", "--json").out)] == [other]
    done = camora("list", "--limit", "1")
    assert "there may be more than 1; --limit shows them" in done.err
    done = camora("list", "--state", "fresh")
    assert (done.code, done.err) == (2, "camora: --state fresh: one of recording, running or finished\n")
    assert "--status failed lists those that have ended so" in camora("list", "--state", "failed").err
    assert "all that have ended, however that was, are finished" in camora("purge", "--state", "failed").err


def test_a_list_of_what_came_to_this(shop: Any, camora: Run) -> None:
    def found(*words: str) -> list[str]:
        return [one["id"] for one in json.loads(camora("list", "--json", *words).out)]

    failed = [dispatched(shop, shop.check.s(number) >> shop.double.s()) for number in range(3)]
    well = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    cancelled = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    camora("cancel", cancelled)
    worked(shop)
    running = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    assert found("--status", "failed") == sorted(failed)
    assert found("--status", "failed", "--state", "finished", "-n", "2") == sorted(failed)[:2]
    assert found("--status", "succeeded") == [well]
    assert found("--status", "cancelled") == [cancelled]
    assert sorted(found()) == sorted([*failed, well, cancelled, running])
    assert camora("list", "--status", "expired").out == "there are no such workflows\n"
    done = camora("list", "--status", "running")
    assert done.code == 2
    assert done.err == (
        "camora: --status running: one of succeeded, failed, discarded, expired or cancelled; --state running lists "
        "those that are running\n"
    )
    done = camora("list", "--status", "failed", "--state", "running")
    assert (done.code, "only a finished workflow has come to something; leave out --state" in done.err) == (2, True)
    assert "--status" in camora("list", "--help").out


# Mending


def healthy(camora: Run) -> bool:
    done = camora("recover", "--dry-run")
    return done.code == 0 and done.out == "all workflows are healthy\n"


def test_what_goes_its_way_is_healthy(shop: Any, camora: Run) -> None:
    assert healthy(camora)
    its_id = dispatched(shop, chord([shop.add.s(1, 2), shop.add.s(3, 4)], shop.total.s()))
    assert healthy(camora)
    worked(shop)
    assert healthy(camora)
    assert camora("recover", its_id).code == 0


def test_an_operator_has_purged_a_queue(shop: Any, camora: Run) -> None:
    """Between two steps, at the start, and within a group: found, shown, not mended by a dry run, mended."""
    chained = dispatched(shop, shop.double.s(1) >> shop.add.s(2) >> shop.double.s())
    begun = dispatched(shop, shop.add.s(1, 1) >> shop.double.s())
    grouped = dispatched(shop, chord([shop.double.s(1), shop.add.s(3, 4), shop.double.s(5)], shop.total.s()))

    async def until_sums_wait(app: Camora) -> None:
        async with app.worker(queues=["default"]), asyncio.timeout(60):
            while (await app.queue_control.counts()).get("sums", {}).get("ready") != 3:
                await asyncio.sleep(0.02)
        assert await app.queue_control.purge("sums") == 3

    does(shop, until_sums_wait)
    done = camora("recover", "--dry-run")
    assert done.code == 1, done.err
    told = lines(done.out)
    assert told[0] == f"{chained}  double.s() >> add.s() >> double.s()"
    assert told[1] == f"  lost: 1 job may run, and the broker does not have it: add {chained}.1"
    assert told[-1] == "3 to mend; nothing was done (--dry-run)"
    data = json.loads(camora("recover", "--dry-run", "--json").out)
    assert data["healthy"] is False
    assert [(one["id"], one["found"][0]["what"], one["mended"]) for one in data["workflows"]] == [
        (chained, "lost", False),
        (begun, "lost", False),
        (grouped, "lost", False),
    ]

    done = camora("recover", chained)
    assert done.code == 0, done.out
    assert lines(done.out)[-1] == "  mended"
    done = camora("recover")
    assert done.code == 0, done.out
    assert lines(done.out).count("  mended") == 2
    assert healthy(camora)
    worked(shop)
    assert [comes_to(shop, its_id) for its_id in (chained, begun, grouped)] == [8, 4, 19]
    assert healthy(camora)


def test_lost_jobs_are_marked_in_the_tree(shop: Any, camora: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    its_id = dispatched(shop, shop.add.s(1, 1) >> shop.double.s())
    does(shop, lambda app: app.queue_control.purge("sums"))
    monkeypatch.setattr("camora_workflows.desk._FRESH", 0)
    assert "! add #0  lost: it may run, and its job is nowhere (camora workflow recover)" in camora("show", its_id).out


def test_a_job_whose_id_the_broker_remembers_runs_under_another_one(
    shop: Any, camora: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    its_id = dispatched(shop, shop.add.s(1, 1) >> shop.double.s())

    async def gone(app: Camora) -> None:
        stores = await app._connections.get()
        await stores.broker.queues.purge("sums")
        real = type(stores.broker).publish

        async def publish(self: Any, envelopes: Any) -> Any:
            kept = [envelope for envelope in envelopes if envelope.id != f"{its_id}.0"]
            await real(self, kept)
            return [envelope.id for envelope in envelopes]

        monkeypatch.setattr(type(stores.broker), "publish", publish)

    does(shop, gone)
    assert camora("recover").code == 0
    worked(shop)
    assert comes_to(shop, its_id) == 4
    shown = camora("show", its_id).out
    assert "✓ add #0  succeeded" in shown
    assert "run 2" in shown


def test_a_broker_that_does_not_show_its_jobs(shop: Any, camora: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody knows whether one is lost: what has not changed for long is sent again."""
    its_id = dispatched(shop, shop.add.s(1, 1) >> shop.double.s())
    does(shop, lambda app: app.queue_control.purge("sums"))

    async def hidden(self: Any, job_id: str) -> None:
        raise UnsupportedCapability("this broker shows no jobs", capability="inspect")

    with monkeypatch.context() as patch:
        patch.setattr(type(shop.app.broker.queues), "find", hidden)
        assert healthy(camora)
        done = camora("recover", "--dry-run", "--quiet", "0s")
        assert (done.code, "  lost: 1 job may run" in done.out) == (1, True)
        assert camora("recover", "--quiet", "0s").code == 0
        assert "begun" in camora("show", its_id).out
    worked(shop)
    assert comes_to(shop, its_id) == 4


def test_a_dispatcher_died_after_the_start(shop: Any, camora: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[str] = []

    async def dies(self: Any, store: Any, its_id: str, at_hand: Any) -> None:
        died.append(its_id)
        raise asyncio.CancelledError

    with monkeypatch.context() as patch, contextlib.suppress(asyncio.CancelledError):
        patch.setattr(Recorder, "_publish", dies)
        dispatched(shop, chord([shop.double.s(number) for number in range(3)], shop.total.s()))
    done = camora("recover", "--dry-run")
    assert done.code == 1
    assert lines(done.out)[1] == "  unpublished: 3 jobs of its start were never handed to the broker"
    assert camora("recover", died[0]).code == 0
    worked(shop)
    assert comes_to(shop, died[0]) == 6


def test_an_abandoned_recording(shop: Any, camora: Run) -> None:
    async def half(app: Camora) -> None:
        store = await (await app._connections.get()).workflows()
        assert store is not None
        now = app.clock.now_ms()
        for name, ago in (("old", 7200), ("young", 60)):
            moment = now - ago * 1000
            assert await store.create(WorkflowRecord(id=name, name="half", created=moment, changed=moment))

    does(shop, half)
    done = camora("recover", "--dry-run")
    assert done.code == 1
    assert lines(done.out)[:2] == [
        "old  half",
        "  abandoned: its recording stopped at 0 nodes and never started: whoever dispatched it has died",
    ]
    assert camora("recover").code == 0
    assert [found["id"] for found in json.loads(camora("list", "--json").out)] == ["young"]
    assert camora("show", "young").out.startswith("chain young: recording")


def test_an_undone_consequence(shop: Any, camora: Run) -> None:
    """Somebody marked the end of a job, and died before what follows from it."""
    its_id = dispatched(shop, shop.check.s(1) >> shop.double.s() >> shop.double.s())

    async def marked(app: Camora) -> None:
        from camora.interfaces import Mark
        from camora_workflows.plan import Outcome, pack

        store = await (await app._connections.get()).workflows()
        assert store is not None
        outcome = pack(Outcome(status="cancelled"))
        await store.end([Mark(workflow=its_id, index=0, status="cancelled", outcome=outcome)], app.clock.now_ms())

    does(shop, marked)
    done = camora("recover", "--dry-run")
    assert done.code == 1
    assert "  undone: what the ends of others mean for #1 was not carried out: whoever was to do it has died" in lines(
        done.out
    )
    assert camora("recover").code == 0
    assert healthy(camora)
    shown = lines(camora("show", its_id).out)
    assert shown[0] == f"chain {its_id}: cancelled"
    assert "└── ∅ double #2  skipped: #0 cancelled" in shown


def test_an_error_is_told_in_a_line(camora: Run, shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from camora.errors import BrokerUnavailable

    async def away(*_: object, **__: object) -> None:
        raise BrokerUnavailable("the database is away")

    dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    monkeypatch.setattr("camora_workflows.recovering.examine", away)
    done = camora("recover")
    assert (done.code, done.out, done.err) == (2, "", "camora: the database is away\n")
    done = camora("recover", "--quiet", "soon")
    assert done.code == 2
    assert done.err.startswith("camora: --quiet: ")


# Changing


def test_failed_members_are_run_again(shop: Any, camora: Run) -> None:
    its_id = dispatched(shop, shop.add.s(1, 2) >> shop.check.s() >> shop.double.s())
    worked(shop)
    with pytest.raises(JobFailed):
        comes_to(shop, its_id)
    (Path.cwd() / "mended").touch()
    done = camora("retry", its_id)
    assert (done.code, done.out) == (0, f"{its_id}: 1 job will run again\n")
    worked(shop)
    assert comes_to(shop, its_id) == 6
    assert camora("retry", its_id).out == f"{its_id}: no job of it has failed, expired or been cancelled\n"


def test_what_has_run_on_failure_is_named_before_it_is_retried(shop: Any, camora: Run) -> None:
    def handled() -> str:
        failing = chain(shop.check.s(1), shop.double.s(), on_failure=shop.alert.si("one"))
        many = chain(shop.check.s(2), on_failure=group(shop.alert.si(f"{number}") for number in range(4)))
        unheard = shop.add.s(1, 2) >> chain(shop.double.s(), on_failure=shop.alert.si("never"))
        its_id = dispatched(shop, group(failing, many, unheard))
        worked(shop)
        return its_id

    its_id = handled()
    shape = json.loads(camora("show", its_id, "--json").out)["nodes"]
    ran = [node["job"] for node in shape if node["task"] == "alert" and node["state"] == "succeeded"]
    assert len(ran) == 5
    done = camora("retry", its_id)
    assert (done.code, done.out) == (0, f"{its_id}: 2 jobs will run again\n")
    told = ", ".join(f"alert ({job})" for job in ran[:3])
    said = f"camora: {its_id}: on_failure has run already, and does not run again: {told} and 2 more\n"
    assert done.err == said
    done = camora("retry", its_id)
    assert done.err == "", "nothing is run again"
    (Path.cwd() / "mended").touch()
    worked(shop)
    assert comes_to(shop, its_id) == [2, 2, 6]
    (Path.cwd() / "mended").unlink()
    its_id = handled()
    done = camora("retry", its_id, "--json")
    data = json.loads(done.out)
    assert (data["retried"], done.err) == (2, "")
    assert [one["task"] for one in data["on_failure_ran"]] == ["alert"] * 5
    assert {one["job"].rpartition(".")[0] for one in data["on_failure_ran"]} == {its_id}
    assert json.loads(camora("retry", its_id, "--json").out) == {"id": its_id, "retried": 0, "on_failure_ran": []}


def test_cancelling(shop: Any, camora: Run) -> None:
    its_id = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    assert camora("cancel", its_id).out == f"{its_id}: cancelled: nothing of it runs any more\n"
    assert camora("cancel", its_id).out == f"{its_id}: too late: it has ended already\n"
    shown = lines(camora("show", its_id).out)
    assert shown[0] == f"chain {its_id}: cancelled"
    assert shown[3] == "├── ⊘ add #0  cancelled"


def test_purging(shop: Any, camora: Run) -> None:
    ended = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    worked(shop)
    running = dispatched(shop, shop.add.s(1, 2) >> shop.double.s())
    assert camora("purge", "--dry-run").out == "1 finished workflow would be deleted\n"
    done = camora("purge")
    assert done.code == 2
    assert "Delete all that is known of 1 finished workflow? Nobody can answer here: say --yes" in done.err
    assert camora("purge", "--older-than", "1d", "--yes").out == "0 deleted\n"
    assert json.loads(camora("purge", "--yes", "--json").out) == {"found": 1, "deleted": 1, "dry_run": False}
    assert camora("show", ended).code == 3
    assert camora("show", running).code == 0
    assert camora("purge", "--state", "running", "--yes").out == "1 deleted\n"
    worked(shop)  # the job that is left finds that its workflow is gone
    assert camora("list").out == "there are no workflows\n"


def test_an_app_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, camora: Run, shop: Any) -> None:
    for store in (shop.app.broker, shop.app.results):
        monkeypatch.setattr(type(store), "own_workflows", lambda self: None)
    done = camora("list")
    assert done.code == 2
    assert 'keeps workflows: there are none to look at. Say  url = "redis://…"' in done.err
