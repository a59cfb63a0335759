"""The process pool beyond its exam: what travels, what dies with whom, and dependencies on the other side."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from camora.builtin.pools import make_pool
from camora.context import Context
from camora.errors import ConfigurationError, EncodeError
from camora.failures import describe
from camora.interfaces.pool import Call, Pool, PoolSettings, ProcessDied, RemoteError
from camora.message import Delivery, Message

HERE = Path(__file__).parent


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOL_TEST_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch, log: Path) -> ModuleType:
    monkeypatch.syspath_prepend(HERE)
    import pool_functions

    return pool_functions


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Pool]:
    made = make_pool("process", PoolSettings(kind="process", workers=1))
    await made.open()
    yield made
    await made.close(5.0)


def a_call(function: Any, *args: Any, **more: Any) -> Call:
    function = getattr(function, "function", function)
    return Call(
        function=function,
        args=args,
        reference=f"{function.__module__}:{function.__qualname__}",
        task=function.__name__,
        is_async=asyncio.iscoroutinefunction(function),
        **more,
    )


def a_context(job_id: str, task: Any = None) -> Context:
    port: Any = None
    message = Message(id=job_id, task=getattr(task, "name", "t"), attempt=2)
    return Context(message, task, delivery=Delivery(id=job_id, queue="default", body=b""), worker="w", port=port)


def of_job(functions: ModuleType, task: Any, job_id: str, *args: Any) -> Call:
    return a_call(
        task,
        *args,
        injected={"session": functions.Session, "context": Context},
        context=a_context(job_id, task),
        app="pool_functions:app",
    )


# What travels


async def test_context_variables_travel_where_they_can(pool: Pool, functions: ModuleType) -> None:
    assert await pool.call(a_call(functions.who)) == "nobody"
    functions.WHO.set(["me"])
    contextvars.ContextVar("nowhere").set(1)
    assert await pool.call(a_call(functions.who)) == ["me"]
    functions.WHO.set(threading.Lock())
    assert await pool.call(a_call(functions.who)) == "nobody"


@pytest.mark.parametrize(
    ("how", "kind"), [("unpicklable", "Unpicklable"), ("needs two", "NeedsTwo"), ("mute", "Mute"), ("huge", "OSError")]
)
async def test_exceptions_that_cannot_travel_arrive_as_bounded_text(
    pool: Pool, functions: ModuleType, how: str, kind: str
) -> None:
    with pytest.raises(Exception) as caught:
        await pool.call(a_call(functions.fail, how))
    seen = describe(caught.value)
    assert seen.type.endswith(kind)
    assert "in fail" in seen.traceback
    assert len(seen.text) + len(seen.traceback) < 50_000
    if isinstance(caught.value, RemoteError) and kind == "Unpicklable":
        assert "OSError" in caught.value.bases


async def test_exceptions_that_can_travel_keep_type_and_remote_traceback(pool: Pool, functions: ModuleType) -> None:
    with pytest.raises(KeyError, match="other") as caught:
        await pool.call(a_call(functions.fail, "other"))
    assert "in fail" in describe(caught.value).traceback
    assert not hasattr(caught.value, "refused")


async def test_results_and_arguments_that_cannot_travel_are_named(pool: Pool, functions: ModuleType) -> None:
    with pytest.raises(EncodeError, match=r"unreturnable: its result \(lock\)"):
        await pool.call(a_call(functions.unreturnable))
    with pytest.raises(EncodeError, match="fail: argument 0") as caught:
        await pool.call(a_call(functions.fail, threading.Lock()))
    assert caught.value.path == "0"
    assert getattr(caught.value, "refused", False)


async def test_functions_that_cannot_be_imported_are_refused_with_advice(pool: Pool, functions: ModuleType) -> None:
    def local() -> None: ...

    for function in (local, lambda: None):
        with pytest.raises(ConfigurationError, match=r"[Dd]efine it at module level"):
            await pool.call(a_call(function))
    shadowed = a_call(functions.pid)
    other = Call(function=functions.who, reference=shadowed.reference, task="who")
    with pytest.raises(ConfigurationError, match="another function"):
        await pool.call(other)


# Dying


async def test_a_killed_process_is_the_culprit_s_alone(functions: ModuleType, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pool = make_pool("process", PoolSettings(kind="process", workers=2))
    await pool.open()
    culprit = asyncio.create_task(pool.call(a_call(functions.hang, str(fifo))))
    victim = int(await asyncio.to_thread(fifo.read_text))
    assert await pool.call(a_call(functions.pid)) != victim
    os.kill(victim, signal.SIGTERM)  # of the whole group's signals only the parent decides
    os.kill(victim, signal.SIGINT)
    assert await pool.call(a_call(functions.pid)) != victim
    assert not culprit.done()
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(ProcessDied, match="SIGKILL") as caught:
        await culprit
    assert caught.value.exit_code == -signal.SIGKILL
    await pool.close(1.0)


async def test_an_idle_process_that_dies_is_replaced(pool: Pool, functions: ModuleType) -> None:
    first = await pool.call(a_call(functions.pid))
    os.kill(first, signal.SIGKILL)
    pidfd = os.pidfd_open(first)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    assert await pool.call(a_call(functions.pid)) != first


async def test_a_death_is_noticed_though_a_fork_holds_the_pipes(pool: Pool, functions: ModuleType) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(ProcessDied) as caught:
            await pool.call(a_call(functions.forks_and_dies))
    assert caught.value.exit_code == 4


async def test_a_timeout_kills_what_refuses_to_end(pool: Pool, functions: ModuleType, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = asyncio.create_task(asyncio.to_thread(fifo.read_text))
    with pytest.raises(TimeoutError):
        await pool.call(a_call(functions.hang, str(fifo), timeout=0.5))
    victim = int(await reading)
    await pool.close(1.0)
    with pytest.raises(ProcessLookupError):
        os.kill(victim, 0)


async def test_a_process_is_replaced_after_max_calls(functions: ModuleType) -> None:
    pool = make_pool("process", PoolSettings(kind="process", workers=1, max_calls=2))
    await pool.open()
    pids = [await pool.call(a_call(functions.pid)) for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    await pool.close(1.0)


PARENT = """
import asyncio, os, sys
sys.path.insert(0, {here!r})
import pool_functions
from camora.builtin.pools import make_pool
from camora.interfaces.pool import Call, PoolSettings

async def main():
    pool = make_pool("process", PoolSettings(kind="process", workers=2))
    await pool.open()
    print(await pool.call(Call(function=pool_functions.pid, reference="pool_functions:pid", task="pid")), flush=True)
    await pool.call(Call(function=pool_functions.hang, args=({fifo!r},), reference="pool_functions:hang", task="hang"))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    fifo, script = tmp_path / "fifo", tmp_path / "parent.py"
    os.mkfifo(fifo)
    script.write_text(PARENT.format(here=str(HERE), fifo=str(fifo)))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        victim = int(fifo.read_text())
        pidfd = os.pidfd_open(victim)
        parent.send_signal(number)
        parent.wait(30)
    import select

    assert select.select([pidfd], [], [], 10)[0], "it lives on without its parent"
    os.close(pidfd)


# Dependencies


@pytest.mark.parametrize("name", ["decorated", "decorated_later"])
async def test_dependencies_are_made_over_there_and_torn_down(
    pool: Pool, functions: ModuleType, log: Path, name: str
) -> None:
    task = getattr(functions, name)
    first = await pool.call(of_job(functions, task, "j1"))
    second = await pool.call(of_job(functions, task, "j2"))
    assert first[0] == second[0], "the app's scope was made anew"
    assert first[1:3] == ("j1", 2)
    assert second[3] != os.getpid()
    assert log.read_text().splitlines() == ["committed j1", "committed j2"]
    await pool.close(5.0)
    assert log.read_text().splitlines()[2:] == ["engine down"]


async def test_a_dependency_that_cannot_be_made_is_an_error_from_before_the_function(
    pool: Pool, functions: ModuleType
) -> None:
    call = a_call(
        functions.broken, injected={"wanted": functions.Broken}, context=a_context("j4"), app="pool_functions:app"
    )
    with pytest.raises(OSError, match="no connection") as caught:
        await pool.call(call)
    assert getattr(caught.value, "refused", False)


async def test_dependencies_over_there_are_told_of_an_error(pool: Pool, functions: ModuleType, log: Path) -> None:
    call = of_job(functions, functions.decorated, "j3")
    with pytest.raises(ValueError, match="no"):
        await pool.call(
            Call(**{**{name: getattr(call, name) for name in call.__struct_fields__}, "kwargs": {"fail": True}})
        )
    assert log.read_text().splitlines() == ["rolled back j3"]


def test_importing_camora_imports_no_pools() -> None:
    code = "import sys, camora; sys.exit(bool({'pebble', 'multiprocessing', 'svcs', 'backoff'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
