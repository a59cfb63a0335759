"""The CPU time of RabbitMQ, if it is on this machine. It keeps no count of what it was asked that is free of charge."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.meter import Meter, Reading
from benchmarks.processes import cpu_ns

__all__ = ["RabbitMeter"]

_PROC = Path("/proc")
_LISTENING = "0A"


class RabbitMeter(Meter):
    """CPU time is that of the Erlang machine that listens at the URL's port, and of all below it."""

    prompt = False

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        here = parts.hostname in ("127.0.0.1", "localhost")
        self._pid = _listener(parts.port or 5672) if here else 0

    def read(self) -> Reading:
        """Now."""
        return Reading(cpu_ns(self._pid) / 1e3 if self._pid else None, None)

    def close(self) -> None:
        """It holds nothing."""


def _listener(port: int) -> int:
    """The Erlang machine that listens here; 0 where there is none to be seen, as in a container."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if not (process / "comm").read_text().startswith("beam"):
                continue
            for handle in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(handle.readlink()) in sockets:
                        return int(process.name)
    return 0


def _inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    found.add(rest[5])
    return found
