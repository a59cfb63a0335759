"""What the jobs do, and how the harness learns of it: through a named pipe, so that any process may tell.

A job that is counted costs the worker about 0.1 µs: the pipe is written for the first one and the last one only; where
workers share the jobs, for every so many, as none knows which is the last.
Where jobs run in child processes each one writes, and the harness counts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

__all__ = ["JOBS", "PLAIN_JOBS", "attach", "attach_from_environment"]

PIPE, EXPECT, FORKS = "CAMORA_BENCH_PIPE", "CAMORA_BENCH_EXPECT", "CAMORA_BENCH_FORKS"
EVERY = "CAMORA_BENCH_EVERY"

_pipe = -1
_path = ""
_expect = 0
_every = 0
_next = 1
_forks = False
_count = 0


def attach(path: str, expect: int, *, forks: bool = False, every: int = 0) -> None:
    """Tell of the first job and of job number `expect` through this pipe.

    Where workers fork, of every job; with `every`, of the first and then of each so many.
    """
    global _path, _expect, _forks, _every, _next, _count, _pipe
    _path, _expect, _forks, _every, _next, _count, _pipe = path, expect, forks, every, 1, 0, -1


def attach_from_environment() -> None:
    """The same, in a worker's process."""
    attach(
        os.environ[PIPE],
        int(os.environ[EXPECT]),
        forks=os.environ.get(FORKS) == "1",
        every=int(os.environ.get(EVERY, "0")),
    )


def _tell(*words: object) -> None:
    global _pipe
    if not _path:
        attach_from_environment()
    if _pipe < 0:
        _pipe = os.open(_path, os.O_WRONLY)
    os.write(_pipe, (" ".join(str(word) for word in words) + "\n").encode())


def _counted() -> None:
    global _count, _next
    _count += 1
    if _forks:
        _tell("one", time.monotonic_ns())
    elif _count == _next:
        _next = _count + _every if _every else _expect
        _tell("count", _count, time.monotonic_ns(), time.process_time_ns(), os.getpid())


async def noop() -> None:
    """Nothing."""
    _counted()


async def stamp(sent: int) -> None:
    """Tell how long ago it was sent."""
    _tell("late", time.monotonic_ns() - sent)


async def nap(seconds: float) -> None:
    """Wait."""
    await asyncio.sleep(seconds)
    _counted()


async def echo(value: int) -> int:
    """Give back what it got."""
    return value


async def answer(value: int) -> int:
    """Give back what it got; counted."""
    _counted()
    return value


async def body(values: list[object]) -> int:
    """Get the results of many; counted."""
    _counted()
    return len(values)


def plain_noop() -> None:
    """Nothing."""
    _counted()


def plain_stamp(sent: int) -> None:
    """Tell how long ago it was sent."""
    _tell("late", time.monotonic_ns() - sent)


def plain_nap(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)
    _counted()


def plain_echo(value: int) -> int:
    """Give back what it got."""
    return value


def plain_answer(value: int) -> int:
    """Give back what it got; counted."""
    _counted()
    return value


def plain_body(values: object = None) -> None:
    """What comes after many; counted."""
    _counted()


Jobs = dict[str, Callable[..., Any]]

JOBS: Jobs = {"noop": noop, "stamp": stamp, "nap": nap, "echo": echo, "answer": answer, "body": body}
PLAIN_JOBS: Jobs = {
    "noop": plain_noop,
    "stamp": plain_stamp,
    "nap": plain_nap,
    "echo": plain_echo,
    "answer": plain_answer,
    "body": plain_body,
}
