"""Reading a process tree's CPU time and memory, from /proc where there is one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cpu_ns", "ended_ns", "parent", "peak_rss_mib", "rss_mib", "tree"]

_PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """This process and all below it."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        for text in _of_threads(one, "children"):
            queue.extend(int(child) for child in text.split())
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of the tree so far, in nanoseconds (exact: the scheduler's own count, not ticks)."""
    total = 0
    for one in tree(pid):
        total += sum(int(text.split()[0]) for text in _of_threads(one, "schedstat") if text.strip())
    return total


def _of_threads(pid: int, name: str) -> Iterator[str]:
    """What this file says of each thread; processes and threads that end meanwhile say nothing."""
    with contextlib.suppress(OSError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                yield (thread / name).read_text()


def parent(pid: int) -> int:
    """The number of the process that started it; 0 where there is none to be found."""
    try:
        return int(_stat(pid)[1])
    except (OSError, IndexError):
        return 0


def ended_ns(pid: int) -> int:
    """CPU time, in nanoseconds, of the children that it has seen end, and of theirs; in steps of a tick."""
    try:
        user, system = _stat(pid)[13:15]
    except (OSError, ValueError):
        return 0
    return (int(user) + int(system)) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    # From the state on: the name before it may hold anything.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _status(pid: int, key: str) -> float:
    try:
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def rss_mib(pid: int) -> float:
    """Resident memory of the tree; what processes share is counted in each."""
    return sum(_status(one, "VmRSS:") for one in tree(pid))


def peak_rss_mib(pid: int) -> float:
    """The most resident memory each process of the tree had, summed."""
    return sum(_status(one, "VmHWM:") for one in tree(pid))
