"""Whether this machine is fit."""

from __future__ import annotations

import sys
import time
import zoneinfo
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from camora.builtin.checks.looking import failed, fine
from camora.interfaces.operations import CheckResult

__all__ = ["clock_sane", "loop_fast"]

_FIRST = datetime(2024, 1, 1, tzinfo=UTC)


async def clock_sane(app: Any) -> CheckResult:
    """The clock has been set, and time zones are known."""
    now = datetime.fromtimestamp(app.clock.now_ms() / 1000, UTC)
    if now < _FIRST:
        return failed(f"it is {now:%Y-%m-%d} by the clock of this machine", "set it, and keep it by NTP")
    try:
        zoneinfo.ZoneInfo("Europe/Paris")
    except zoneinfo.ZoneInfoNotFoundError:
        return failed("no time zones are installed", "pip install tzdata")
    return fine(f"{now:%Y-%m-%d %H:%M:%S} UTC; this machine's zone is {time.tzname[0]}")


async def loop_fast(_: Any) -> CheckResult:
    """A faster event loop is there where it can be."""
    if find_spec("uvloop") is not None:
        return fine("uvloop is installed")
    if sys.platform == "win32":
        return fine("asyncio's own; uvloop does not exist for Windows")
    return fine("asyncio's own", "pip install 'camora[fast]' for uvloop")
