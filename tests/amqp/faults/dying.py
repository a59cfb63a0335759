"""Settlements in a process of its own that is killed at one step on its way to the server, whichever a test asks for.

A step is: before each time that something is written to any of its connections, and before something that came is
read. Who dies after one of them has told others just as much as who dies before the next.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Action, DeadLetter, Settlement
from camora_amqp import AmqpBroker
from camora_amqp.wire import Wire

from tests import forked

__all__ = ["DEEDS", "Deed"]

_ROOT = Path(__file__).parents[3]
_MOST_STEPS = 100


class Deed:
    """What is done again and again, from the test's side. As a context it ends its process."""

    def __init__(self, name: str, url: str) -> None:
        self._process = forked.Popen(
            [sys.executable, "-m", "tests.amqp.faults.dying", name, url],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    async def until(self, step: int) -> bool:
        """Do it with the message in queue `q`, and be killed at this step, from 1; whether it came so far."""
        return await asyncio.to_thread(self._until, step)

    def _until(self, step: int) -> bool:
        assert step < _MOST_STEPS, "it does not end"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        ended = int(self._process.stdout.readline())
        assert ended in (0, -signal.SIGKILL)
        return ended != 0


# In the other process


def light(at: int) -> None:
    """From now on, count the steps of all connections, and die at this one."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def fused(there: Callable[[Wire, bytes], None]) -> Callable[[Wire, bytes], None]:
        def between(wire: Wire, data: bytes) -> None:
            step()
            there(wire, data)

        return between

    wire: Any = Wire
    wire._write_now = fused(wire._write_now)
    wire.data_received = fused(wire.data_received)


def succeed(one: Delivery) -> Settlement:
    follows = tuple(Envelope(id=f"{one.id}-{part}", task="t", queue="next", body=b"{}") for part in "ab")
    return Settlement(delivery=one, action=Action.ACK, successors=follows)


def retry(one: Delivery) -> Settlement:
    again = Envelope(id=one.id, task="t", queue="q", body=b"again")
    return Settlement(delivery=one, action=Action.RETRY, envelope=again)


def bury(one: Delivery) -> Settlement:
    letter = DeadLetter(id=one.id, queue=one.queue, task="t", body=one.body, reason="failed", deliveries=1, died=1)
    return Settlement(delivery=one, action=Action.REJECT, letter=letter)


DEEDS: dict[str, Callable[[Delivery], Settlement]] = {deed.__name__: deed for deed in (succeed, retry, bury)}


async def settle(name: str, url: str, step: int) -> None:
    broker = AmqpBroker(url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("q",), worker="dies", lease=60))
    [one] = await consumer.receive(1, 30.0)
    await consumer.stop()
    light(step)
    assert list(await consumer.settle([DEEDS[name](one)])) == [True]
    await consumer.close()
    await broker.close()


def main(name: str, url: str) -> None:
    """Do it for each step that is asked for, in a process that is forked from this one: it has imported everything."""
    AmqpBroker(url)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(settle(name, url, int(line)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
