"""The app of the tests of schedules: a bell that rings every second, and schedulers that die when they are told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camora import Camora, Context, every
from camora.interfaces.schedule import Fire, ScheduleStore
from camora_sql.broker import SqlBroker
from camora_sql.schedules import SqlScheduleStore

FOLDER = Path(os.environ["SHOP_FOLDER"])
CRASH = os.environ.get("SHOP_CRASH", "")
"""At which step this process kills itself."""


def crash(step: str) -> None:
    if step == CRASH and (FOLDER / "crash-now").exists():
        (FOLDER / f"crashed-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def block() -> None:
    """Hold the event loop for good."""
    if CRASH == "block":
        (FOLDER / "blocked").touch()
        time.sleep(600)


class CrashingStore(SqlScheduleStore):
    """Dies around its own calls."""

    async def claim(self, now: int, **wanted: Any) -> Sequence[Fire]:
        fires = await super().claim(now, **wanted)
        if fires:
            crash("claimed")
            block()
        return fires

    async def advance(self, fire: Fire, **news: Any) -> bool:
        crash("sent")
        moved = await super().advance(fire, **news)
        crash("advanced")
        return moved


class CrashingBroker(SqlBroker):
    def own_schedules(self) -> ScheduleStore:
        return CrashingStore(self._store)


app = Camora(CrashingBroker(os.environ["SHOP_BROKER"]))


@app.task(name="ring", queue="bells")
async def ring(ctx: Context) -> None:
    """One line for each time it runs."""
    line = f"{ctx.headers['camora.tick']} {ctx.id}\n"
    file = os.open(FOLDER / "rings", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


app.schedule("bell", ring.s(), every(seconds=1), catch_up="all")
