"""Deeds in a process of its own that is killed at one step on its way to the database, whichever a test asks for.

A step is: before and after everything that is asked of the connection. What was said until then is heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from camora import Camora, dispatching, every
from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Action, DeadLetter, JobRecord, Settlement, Status

from tests import forked

__all__ = ["BATCH", "MANY", "MINUTE", "PERIOD", "START", "Deed", "Stopped", "chimes", "doing"]

_ROOT = Path(__file__).parents[3]
_MOST_STEPS = 200

START = 1_750_000_020_000
"""The clock of the schedules, in milliseconds since the epoch, before the first step."""
MINUTE = 60_000
PERIOD = 30_000
"""Milliseconds between their ticks."""
BATCH = 100
"""Jobs of one part of a `dispatch_many`: what many there would be many times, at each step."""
MANY = 2 * BATCH + 50
"""Jobs of one `dispatch_many`: it makes three parts of them."""


class Deed:
    """What is done again and again, from the test's side."""

    def __init__(self, name: str, url: str) -> None:
        self._process = forked.Popen(
            [sys.executable, "-m", "tests.sql.faults.dying", name, url],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def until(self, step: int) -> tuple[bool, list[Any]]:
        """Do it, and be killed at this step, from 1; whether it came so far, and what was said before."""
        return await asyncio.to_thread(self._until, step)

    def _until(self, step: int) -> tuple[bool, list[Any]]:
        assert step < _MOST_STEPS, "it does not end"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        said: list[Any] = []
        for line in self._process.stdout:
            told = json.loads(line)
            if isinstance(told, dict):
                assert told["ended"] in (0, -signal.SIGKILL)
                return told["ended"] != 0, said
            said.append(told)
        raise AssertionError("its process has ended")

    def close(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def doing(name: str, url: str) -> Iterator[Deed]:
    """A deed of this name."""
    deed = Deed(name, url)
    try:
        yield deed
    finally:
        deed.close()


# In the other process


class Fuse:
    """Kills this process at a step of those that come after it was lit."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._steps = 0
        self._lit = False

    def light(self) -> None:
        self._lit = True

    def step(self) -> None:
        self._steps += self._lit
        if self._steps == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class Fused:
    """A connection with a fuse."""

    def __init__(self, driver: Any, fuse: Fuse) -> None:
        self._driver = driver
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        there = getattr(self._driver, name)
        # What is only put off goes with what comes next.
        put_off = name in ("deferring", "later") or (name == "change" and getattr(self._driver, "_deferring", False))
        if put_off or not callable(there):
            return there

        @functools.wraps(there)
        def between_steps(*given: Any) -> Any:
            self._fuse.step()
            answer = there(*given)
            self._fuse.step()
            return answer

        return between_steps


def put_in(fuse: Fuse, app: Camora) -> None:
    """Have every connection of the app's database go by the fuse."""
    dialect: Any = app.broker.database.dialect  # type: ignore[attr-defined]
    connect = dialect.connect
    dialect.connect = lambda: Fused(connect(), fuse)


def say(what: Any) -> None:
    os.write(1, f"{json.dumps(what)}\n".encode())


class Stopped:
    """A clock that stands still unless it is set."""

    def __init__(self, moment: int) -> None:
        self.moment = moment

    def now_ms(self) -> int:
        return self.moment

    def monotonic(self) -> float:
        return self.moment / 1000


def chimes(url: str, clock: Stopped) -> Camora:
    """An app with a schedule of each way to catch up."""
    app = Camora(url, clock=clock)

    @app.task(name="chime", queue="chimes")
    async def chime() -> None:
        """Nobody runs it: the test takes its jobs."""

    app.schedule("all", chime.s(), every(seconds=PERIOD / 1000), catch_up="all")
    app.schedule("one", chime.s(), every(seconds=PERIOD / 1000), catch_up="one")
    return app


async def fire(url: str, step: int, fuse: Fuse) -> None:
    """Fire what is due, a minute later at each step."""
    app = chimes(url, Stopped(START + step * MINUTE))
    put_in(fuse, app)
    async with app:
        scheduler = app.make_scheduler()
        await scheduler.next_due()
        fuse.light()
        await scheduler.run_due()


async def dispatch(url: str, step: int, fuse: Fuse) -> None:
    """Dispatch many, of which each part is acknowledged by itself; says which are."""
    app = Camora(url)
    put_in(fuse, app)

    @app.task(name="work")
    async def work() -> None:
        """Nobody runs it."""

    async with app:
        await app.broker.queues.counts()
        fuse.light()
        signatures = (work.options(job_id=f"{step}-{number}").s() for number in range(MANY))
        async for job in app.dispatch_many(signatures):
            say(job.id)


def letter_of(one: Delivery) -> Settlement:
    letter = DeadLetter(id=one.id, queue=one.queue, task="t", body=one.body, reason="failed", deliveries=1, died=1)
    record = JobRecord(id=one.id, status=Status.FAILED)
    return Settlement(delivery=one, action=Action.REJECT, letter=letter, record=record)


async def bury(url: str, step: int, fuse: Fuse) -> None:
    """Take two messages, one of them with a key, and make dead letters of both."""
    app = Camora(url)
    put_in(fuse, app)
    async with app:
        queue = f"q{step}"
        consumer = await app.broker.consumer(ConsumerSettings(queues=(queue,), worker="w", lease=0.2))
        keys = {f"{queue}-plain": None, f"{queue}-keyed": f"key-{step}"}
        await app.broker.publish(
            [Envelope(id=name, task="t", queue=queue, body=b"body", key=key) for name, key in keys.items()]
        )
        taken = await consumer.receive(2, 10.0)
        fuse.light()
        say(list(await consumer.settle([letter_of(one) for one in taken])))
        await consumer.close()


async def requeue(url: str, step: int, fuse: Fuse) -> None:
    """Make a message of a dead letter again."""
    app = Camora(url)
    put_in(fuse, app)
    async with app:
        queue = f"q{step}"
        consumer = await app.broker.consumer(ConsumerSettings(queues=(queue,), worker="w", lease=30))
        await app.broker.publish([Envelope(id=queue, task="t", queue=queue, body=b"body", key=f"key-{step}")])
        assert list(await consumer.settle([letter_of(one) for one in await consumer.receive(1, 10.0)])) == [True]
        fuse.light()
        say(await app.requeue(queue))
        await consumer.close()


DEEDS: dict[str, Callable[[str, int, Fuse], Coroutine[Any, Any, None]]] = {
    deed.__name__: deed for deed in (fire, dispatch, bury, requeue)
}


def main(name: str, url: str) -> None:
    """Do it for each step that is asked for, in a process that is forked from this one: it has imported everything."""
    dispatching.BATCH = BATCH
    Camora(url)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(DEEDS[name](url, int(line), Fuse(int(line))))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        say({"ended": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    main(*sys.argv[1:])
