"""The app of the fault tests: imported by real worker processes, steered by the environment."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camora import Camora, Context, RetryPolicy
from camora.clock import SYSTEM_CLOCK, SystemClock
from camora.interfaces import Broker, Consumer
from camora.testing.ledger import Ledger
from camora_workflows import FailedStep

FOLDER = Path(os.environ["SHOP_FOLDER"])
CRASH = os.environ.get("SHOP_CRASH", "")
"""At which step the first process that gets there kills itself."""

RESULTS = os.environ.get("SHOP_RESULTS")
"""Where results are kept, if not with the broker; "none": nowhere."""


class WrongClock(SystemClock):
    """A clock that somebody has set wrong."""

    def now_ms(self) -> int:
        return super().now_ms() + round(float(os.environ["SHOP_CLOCK"]) * 1000)


app = Camora(
    os.environ["SHOP_BROKER"],
    results=False if RESULTS == "none" else RESULTS or None,
    clock=WrongClock() if "SHOP_CLOCK" in os.environ else SYSTEM_CLOCK,
)
_ledgers: list[Ledger] = []


def ledger() -> Ledger:
    if not _ledgers:
        _ledgers.append(Ledger(FOLDER / "ledger"))
    return _ledgers[0]


def crash_once(step: str) -> None:
    """Die by SIGKILL, once in the life of the folder, at the step that was asked for."""
    if step == CRASH:
        try:
            (FOLDER / f"crashed-{step}").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


class Crashing(Consumer):
    """A consumer that dies around its own calls."""

    def __init__(self, inner: Consumer) -> None:
        self._inner = inner

    async def receive(self, limit: int, wait: float) -> Sequence[Any]:
        deliveries = await self._inner.receive(limit, wait)
        if deliveries:
            crash_once("received")
        return deliveries

    async def settle(self, settlements: Sequence[Any]) -> Sequence[bool]:
        crash_once("before settle")
        answers = await self._inner.settle(settlements)
        crash_once("after settle")
        return answers

    def leases(self) -> Any:
        return self._inner.leases()

    async def stop(self) -> None:
        await self._inner.stop()

    async def close(self) -> None:
        await self._inner.close()


if CRASH:
    original = type(app.broker).consumer

    async def consumer(self: Broker, settings: Any) -> Consumer:
        return Crashing(await original(self, settings))

    type(app.broker).consumer = consumer  # type: ignore[method-assign]


def mark(name: str) -> None:
    (FOLDER / name).touch()


@app.task(name="work")
async def work(ctx: Context, number: int) -> int:
    with ledger().run(ctx.id, ctx.attempt):
        crash_once("running")
        await asyncio.sleep(0.01)
    crash_once("ran")
    return number


@app.task(name="work_for")
async def work_for(ctx: Context, seconds: float) -> str:
    with ledger().run(ctx.id, ctx.attempt):
        await asyncio.sleep(seconds)
    return str(os.getpid())


@app.task(name="flaky", retry_policy=RetryPolicy(max_tries=3, delay=0.05))
async def flaky(ctx: Context, number: int) -> int:
    with ledger().run(ctx.id, ctx.attempt):
        if ctx.attempt < 2:
            raise ConnectionError("again")
    return number


@app.task(name="add_up")
async def add_up(ctx: Context, numbers: list[int]) -> int:
    """What gathers the results of others, of which each may come once."""
    with ledger().run(ctx.id, ctx.attempt):
        await asyncio.sleep(0.01)
    return sum(numbers)


@app.task(name="add_one")
async def add_one(ctx: Context, number: int) -> int:
    """A link of a chain."""
    with ledger().run(ctx.id, ctx.attempt):
        await asyncio.sleep(0.01)
    return number + 1


@app.task(name="refuse")
async def refuse(ctx: Context, number: int) -> int:
    """A member that fails for good."""
    ledger().started(ctx.id, ctx.attempt)
    raise ValueError(number)


@app.task(name="regret")
async def regret(ctx: Context, failed: FailedStep) -> str:
    """Is told of it."""
    with ledger().run(ctx.id, ctx.attempt):
        return failed.job_id


@app.task(name="weigh")
async def weigh(ctx: Context, number: int, text: str) -> int:
    """A large message with a small result."""
    with ledger().run(ctx.id, ctx.attempt):
        return number + len(text)


@app.task(name="weigh_again", retry_policy=RetryPolicy(max_tries=3, delay=0.05))
async def weigh_again(ctx: Context, number: int, text: str) -> int:
    with ledger().run(ctx.id, ctx.attempt):
        if ctx.attempt < 2:
            raise ConnectionError("again")
        return number + len(text)


@app.task(name="weigh_in_vain")
async def weigh_in_vain(ctx: Context, number: int, text: str) -> None:
    """A large message that becomes a dead letter."""
    ledger().started(ctx.id, ctx.attempt)
    raise ValueError(number + len(text))


@app.task(name="hold")
async def hold(name: str) -> str:
    """Say that it runs, and go on until it is released."""
    mark(f"started-{name}-{os.getpid()}")
    while not (FOLDER / f"release-{name}").exists():
        await asyncio.sleep(0.01)
    return str(os.getpid())


@app.task(name="hold_thread")
def hold_thread(name: str) -> str:
    mark(f"started-{name}-{os.getpid()}")
    while not (FOLDER / f"release-{name}").exists():
        time.sleep(0.01)
    return str(os.getpid())


@app.task(name="hold_gil", execution="sync")
def hold_gil(seconds: float) -> str:
    """Hold the interpreter's lock, as a C extension does that never lets go of it; not so the second time."""
    first = not list(FOLDER.glob("started-gil-*"))
    mark(f"started-gil-{os.getpid()}")
    if first:
        ctypes.PyDLL(None).usleep(round(seconds * 1_000_000))
    return str(os.getpid())


@app.task(name="block", execution="sync")
def block(name: str) -> str:
    """Let the event loop stand still until it is released."""
    return hold_thread(name)


def _until_released(name: str) -> None:
    while not (FOLDER / f"release-{name}").exists():
        time.sleep(0.01)


@app.task(name="forget_thread")
async def forget_thread(name: str) -> None:
    """Leave a thread of the loop's behind that goes on."""
    asyncio.get_running_loop().run_in_executor(None, _until_released, name)


@app.task(name="forget_own_thread")
async def forget_own_thread(name: str) -> None:
    """Leave a thread behind for which the interpreter waits at its end."""
    threading.Thread(target=_until_released, args=(name,)).start()


_hoard: list[bytearray] = []


@app.task(name="hoard")
async def hoard(megabytes: int) -> str:
    """Keep memory for good."""
    _hoard.append(bytearray(os.urandom(1_000_000)) * megabytes)
    return str(os.getpid())


@app.task(name="kill_worker")
async def kill_worker(ctx: Context) -> None:
    """A poison message: whatever process runs it dies."""
    ledger().started(ctx.id, ctx.attempt)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="kill_child", execution="process")
def kill_child() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="in_child", execution="process")
def in_child() -> int:
    return os.getpid()


@app.task(name="stubborn")
async def stubborn(name: str) -> None:
    """Ignores its cancellation."""
    mark(f"started-{name}-{os.getpid()}")
    while not (FOLDER / f"release-{name}").exists():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            mark(f"ignored-{name}")


if "SHOP_BEAT" in os.environ:
    # Reports so many seconds apart, which are believed for as long.
    from camora.worker import reporting, worker

    worker.BEAT, reporting.TTL = float(os.environ["SHOP_BEAT"]), float(os.environ["SHOP_TTL"])

if os.environ.get("SHOP_BROKEN") and os.environ.get("CAMORA_CHILD"):
    sys.exit(7)
