"""What the exam of a pool has it call. Importable, so that pools in other processes can find it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from camora.signals import Suspend

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("camora_conformance_word", default="unset")


class Odd(Exception):
    """An exception of the task's own, with data."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text, number)
        self.number = number


def double(value: int, *, plus: int = 0) -> int:
    """Twice the value, plus something."""
    return 2 * value + plus


def echo(value: Any) -> Any:
    """The same value."""
    return value


def raise_odd(text: str) -> None:
    """Raise an exception of this module."""
    raise Odd(text, 7)


def exit_with(code: object) -> None:
    """As a task that calls `sys.exit`."""
    sys.exit(code)  # type: ignore[arg-type]


def interrupt() -> None:
    """As a task that raises what Ctrl-C raises."""
    raise KeyboardInterrupt


def raise_bare() -> None:
    """Raise something that is no `Exception`."""
    raise BaseException("bare")  # noqa: TRY002 -- exactly that is the case


def suspend(seconds: float) -> None:
    """Ask to be begun anew later."""
    raise Suspend(delay=seconds)


def raise_stop() -> None:
    """Raise what a coroutine must not let out."""
    raise StopIteration(1)


def word() -> str:
    """The caller's context variable."""
    return WORD.get()


def sleep(seconds: float) -> str:
    """Block."""
    time.sleep(seconds)
    return "slept"


def note_and_sleep(folder: str, seconds: float) -> None:
    """Leave a file while this runs, and count the others that run."""
    here = Path(folder)
    mine = here / f"run-{os.getpid()}-{time.monotonic_ns()}"
    mine.touch()
    with (here / "seen").open("a") as seen:
        seen.write(f"{len(list(here.glob('run-*')))}\n")
    time.sleep(seconds)
    mine.unlink()


def meet(folder: str, count: int, patience: float) -> bool:
    """Wait until as many of these run at once; False if they never do."""
    here, until = Path(folder), time.monotonic() + patience
    (here / f"here-{os.getpid()}-{time.monotonic_ns()}").touch()
    while len(list(here.glob("here-*"))) < count:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def die(exit_code: int) -> None:
    """End the process without a word, as the kernel does when memory is out."""
    if exit_code < 0:
        os.kill(os.getpid(), signal.Signals(-exit_code))
        time.sleep(30)
    os._exit(exit_code)


async def double_later(value: int, *, plus: int = 0) -> int:
    """Twice the value, plus something, after a while."""
    await asyncio.sleep(0)
    return 2 * value + plus


async def echo_later(value: Any) -> Any:
    """The same value."""
    return value


async def raise_odd_later(text: str) -> None:
    """Raise an exception of this module."""
    await asyncio.sleep(0)
    raise Odd(text, 7)


async def exit_with_later(code: object) -> None:
    """As a task that calls `sys.exit`."""
    sys.exit(code)  # type: ignore[arg-type]


async def interrupt_later() -> None:
    """As a task that raises what Ctrl-C raises."""
    raise KeyboardInterrupt


async def raise_bare_later() -> None:
    """Raise something that is no `Exception`."""
    raise BaseException("bare")  # noqa: TRY002 -- exactly that is the case


async def suspend_later(seconds: float) -> None:
    """Ask to be begun anew later."""
    raise Suspend(delay=seconds)


async def raise_stop_later() -> None:
    """Raise what a coroutine must not let out."""
    raise StopAsyncIteration


async def word_later() -> str:
    """The caller's context variable."""
    return WORD.get()


async def sleep_later(seconds: float) -> str:
    """Wait, and leave word if cancelled."""
    await asyncio.sleep(seconds)
    return "slept"


async def note_and_sleep_later(folder: str, seconds: float) -> None:
    """Leave a file while this runs, and count the others that run."""
    here = Path(folder)
    mine = here / f"run-{os.getpid()}-{time.monotonic_ns()}"
    mine.touch()
    with (here / "seen").open("a") as seen:
        seen.write(f"{len(list(here.glob('run-*')))}\n")
    await asyncio.sleep(seconds)
    mine.unlink()


def set_word(value: str) -> str:
    """Set the context variable; the caller must not see it."""
    WORD.set(value)
    return WORD.get()


async def set_word_later(value: str) -> str:
    """Set the context variable; the caller must not see it."""
    WORD.set(value)
    return WORD.get()


def unreturnable() -> Any:
    """A value that cannot leave its process."""
    return lambda: None


async def unreturnable_later() -> Any:
    """A value that cannot leave its process."""
    return lambda: None


async def meet_later(folder: str, count: int, patience: float) -> bool:
    """Wait until as many of these run at once; False if they never do."""
    here, until = Path(folder), time.monotonic() + patience
    (here / f"here-{os.getpid()}-{time.monotonic_ns()}").touch()
    while len(list(here.glob("here-*"))) < count:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.01)
    return True
