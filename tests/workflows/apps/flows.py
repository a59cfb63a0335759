"""The app of the fault tests of workflows: imported by real processes, of which one kills itself at a given point."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from camora import Camora
from camora.dispatcher import Dispatcher
from camora.settlement import Settler
from camora_amqp.consumer import AmqpConsumer
from camora_workflows import following, recording
from camora_workflows.compose import Chain, Chord, Group
from camora_workflows.following import Following
from camora_workflows.settings import WorkflowSettings

FOLDER = Path(os.environ["SHOP_FOLDER"])
CRASH = os.environ.get("SHOP_CRASH", "")
"""At which point the first process that gets there dies."""

# Small pages, so that few jobs make several.
following._PAGE = recording._HAND_ON = recording._BATCH = 5

app = Camora(
    os.environ["SHOP_BROKER"],
    results=os.environ.get("SHOP_RESULTS"),
    name="flows",
    extensions={"workflows": WorkflowSettings(sweep=0.3, quiet=0.5)},
)


def crash_once(point: str) -> None:
    """Die by SIGKILL, once in the life of the folder, at the point that was asked for."""
    if point and point == CRASH:
        try:
            (FOLDER / f"crashed-{point}").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def dying(kind: type, name: str, *, before: str = "", after: str = "", when: Callable[..., bool]) -> None:
    """Let a method of this class be a point at which a process may die."""
    method: Callable[..., Awaitable[Any]] = getattr(kind, name)

    async def mortal(self: Any, *args: Any, **kwargs: Any) -> Any:
        fits = when(*args)
        if fits:
            crash_once(before)
        answer = await method(self, *args, **kwargs)
        if fits:
            crash_once(after)
        return answer

    setattr(kind, name, mortal)


def _always(*_: Any) -> bool:
    return True


_published = [0]


def _second_page(*_: Any) -> bool:
    _published[0] += 1
    return _published[0] == 2


def _jobs(messages: Sequence[Any], _: object) -> bool:
    """Whether jobs are among what is stored before an acknowledgement."""
    return any(not message.reply for message in messages)


dying(Following, "follow", after="marked", when=_always)
dying(Settler, "_once", after="settled", when=_always)
dying(Following, "_begin_all", before="fanning out", when=_second_page)
dying(AmqpConsumer, "_publish", after="published", when=_jobs)
if "dispatching" in sys.argv:
    dying(Dispatcher, "publish", before="publishing", when=_second_page)


def tell(what: str, number: int) -> None:
    """One file for each time that a function ran."""
    (FOLDER / f"{what}-{number}-{os.urandom(4).hex()}").touch()


@app.task(name="member")
async def member(number: int) -> int:
    tell("member", number)
    return number


@app.task(name="start")
async def start() -> int:
    tell("start", 0)
    return 100


@app.task(name="body")
async def body(values: list[int]) -> int:
    tell("body", 0)
    return sum(values)


@app.task(name="freezing")
async def freezing(number: int) -> int:
    """The first to run it waits until it is told to go on."""
    tell("freezing", number)
    if not (FOLDER / "frozen").exists():
        (FOLDER / "frozen").write_text(str(os.getpid()))
        while not (FOLDER / "go").exists():
            await asyncio.sleep(0.02)
    return number


def chord(count: int) -> Chord[Any]:
    return Chord(Group([member.s(number) for number in range(count)]), body.s())


def fan(count: int) -> Chain[Any]:
    return Chain([start.s(), Group([member.si(number) for number in range(count)]), body.s()])


def killing(count: int) -> Iterator[Any]:
    """Members, at the last of which whoever asks for them dies."""
    yield from (member.s(number) for number in range(count))
    os.kill(os.getpid(), signal.SIGKILL)


async def dispatch(what: str) -> None:
    async with app:
        header = Group(killing(12)) if what == "recording" else Group([member.s(number) for number in range(12)])
        await Chord(header, body.s()).options(job_id="dying").dispatch()


if __name__ == "__main__":
    asyncio.run(dispatch(sys.argv[2]))
