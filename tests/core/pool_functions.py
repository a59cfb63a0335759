"""What tests call in other processes: found there by this module's name, so it has to stand on the path."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from camora import Camora, Context, dependency

WHO: contextvars.ContextVar[Any] = contextvars.ContextVar("who", default="nobody")
DOWN = Path(os.environ.get("POOL_TEST_LOG", os.devnull))


def note(text: str) -> None:
    with DOWN.open("a") as log:
        log.write(f"{text}\n")


class Engine:
    """Made once in each process."""


class Session:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine


def engine() -> Iterator[Engine]:
    yield Engine()
    note("engine down")


async def session(engine: Engine, context: Context) -> AsyncIterator[Session]:
    try:
        yield Session(engine)
    except ValueError:
        note(f"rolled back {context.id}")
        raise
    note(f"committed {context.id}")


class Broken:
    """Its factory fails."""

    def __init__(self) -> None:
        raise OSError("no connection")


app = Camora(dependencies=[engine, dependency(session, scope="job"), Broken])


@app.task(execution="process")
def decorated(session: Session, context: Context, fail: bool = False) -> tuple[int, str, int, int]:
    if fail:
        raise ValueError("no")
    # A plain function may start a loop of its own, also where its dependencies are made by one.
    asyncio.run(asyncio.sleep(0))
    return id(session.engine), context.id, context.attempt, os.getpid()


@app.task(execution="process")
async def decorated_later(session: Session, context: Context) -> tuple[int, str, int, int]:
    await asyncio.sleep(0)
    return id(session.engine), context.id, context.attempt, os.getpid()


def broken(wanted: Broken) -> None:
    raise AssertionError("never called")


def who() -> Any:
    return WHO.get()


def pid() -> int:
    return os.getpid()


class Unpicklable(OSError):
    def __init__(self, lock: Any) -> None:
        super().__init__("cannot travel")
        self.lock = lock


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail(how: str) -> None:
    if how == "unpicklable":
        raise Unpicklable(threading.Lock())
    if how == "needs two":
        raise NeedsTwo(1, 2)
    if how == "mute":
        raise Mute
    if how == "huge":
        raise OSError("x" * 10_000_000)
    raise KeyError(how)


def unreturnable() -> Any:
    return threading.Lock()


def hang(path: str) -> None:
    """Say that it runs, and run for ever, whatever comes."""
    with Path(path).open("w") as pipe:
        pipe.write(f"{os.getpid()}\n")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def forks_and_dies() -> None:
    """Leave a child behind that holds every pipe of this process."""
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    os._exit(4)
