"""Whether this machine is fit."""

from __future__ import annotations

import shutil
import sys
import time
import zoneinfo
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from camora.builtin.checks.looking import failed, fine
from camora.interfaces.operations import CheckResult

__all__ = ["clock_sane", "disk_free", "files_enough", "loop_fast", "zones_known"]

_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_LEAST = 100 * 1000 * 1000
"""Bytes of disk below which something will soon fail to be written."""
_SPARE = 64
"""Open files that a worker needs beside those of its jobs."""


async def clock_sane(app: Any) -> CheckResult:
    """The clock has been set."""
    now = datetime.fromtimestamp(app.clock.now_ms() / 1000, UTC)
    if now < _FIRST:
        return failed(f"it is {now:%Y-%m-%d} by the clock of this machine", "set it, and keep it by NTP")
    return fine(f"{now:%Y-%m-%d %H:%M:%S} UTC; this machine's zone is {time.tzname[0]}")


async def zones_known(_: Any) -> CheckResult:
    """Time zones can be looked up."""
    try:
        zoneinfo.ZoneInfo("Europe/Paris")
    except zoneinfo.ZoneInfoNotFoundError:
        return failed("none are installed: schedules with a zone cannot be read", "pip install tzdata")
    return fine("known")


async def disk_free(_: Any) -> CheckResult:
    """The disk of the working folder is not full."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    text = f"{free / 1e9:.1f} GB free in {here}"
    return fine(text) if free >= _LEAST else failed(text, "make room: what is to be written there will fail")


async def files_enough(app: Any) -> CheckResult:
    """A worker may open a file or socket for each job that it runs at once."""
    if sys.platform == "win32":
        return fine("not limited for a process on Windows")
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    jobs = 100 if app.worker_settings is None else app.worker_settings.concurrency
    if most == resource.RLIM_INFINITY or most >= jobs + _SPARE:
        return fine(f"a process may open {'as many as it likes' if most == resource.RLIM_INFINITY else most}")
    return fine(f"a process may open {most}, and {jobs} jobs run at once", f"ulimit -n {jobs * 2 + _SPARE}")


async def loop_fast(_: Any) -> CheckResult:
    """A faster event loop is there where it can be."""
    if find_spec("uvloop") is not None:
        return fine("uvloop is installed")
    if sys.platform == "win32":
        return fine("asyncio's own; uvloop does not exist for Windows")
    return fine("asyncio's own", "pip install 'camora[fast]' for uvloop")
