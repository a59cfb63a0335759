"""The CPU time of the emulator of Azure Service Bus. It says nothing of what it was asked."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.meter import Meter, Reading
from benchmarks.processes import cpu_ns

__all__ = ["ServiceBusMeter"]


class ServiceBusMeter(Meter):
    """It is the process that was told to listen at the URL's port."""

    prompt = False

    def __init__(self, url: str) -> None:
        self._pid = _emulator(str(urlsplit(url).port))

    def read(self) -> Reading:
        """Now."""
        return Reading(cpu_ns(self._pid) / 1e3 if self._pid else None, None)

    def close(self) -> None:
        """It holds nothing."""


def _emulator(port: str) -> int:
    """0 where there is none to be seen."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "tests.servers.servicebus" in words and words[words.index("--port") + 1] == port:
                return int(process.name)
    return 0
