"""Sees to it that no server outlives its test process, however that ends."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import tempfile
from pathlib import Path

__all__ = ["Keeper", "keeper"]

# It reads until the other end of the pipe is gone: closed, or dead with its process. Only then does it act.
_SCRIPT = """
while read -r verb pid; do
  case $verb in
    add) kept="$kept $pid " ;;
    drop) kept="${kept%% $pid *} ${kept#* $pid }" ;;
  esac
done
for pid in $kept; do kill -KILL "$pid" 2>/dev/null; done
rm -rf -- "$1"
"""


class Keeper:
    """A small process that kills the servers it was told of, and removes their folder, when this process has ended."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="camora-servers-"))
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "keeper", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C at the terminal is not for it
        )
        self._kept: dict[int, subprocess.Popen[bytes]] = {}
        atexit.register(self._end)

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """Kill this process at the end."""
        self._kept[process.pid] = process
        self._tell(f"add {process.pid}\n")

    def drop(self, process: subprocess.Popen[bytes]) -> None:
        """Forget it: it has ended."""
        self._kept.pop(process.pid, None)
        self._tell(f"drop {process.pid}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    def _end(self) -> None:
        if os.getpid() != self._owner:
            return  # a forked child: the servers are its parent's
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait(30)
        for process in self._kept.values():
            process.wait(30)  # it was killed; what nobody has waited for counts as running


@functools.cache
def keeper() -> Keeper:
    """The keeper of this process, started when first needed."""
    return Keeper()
