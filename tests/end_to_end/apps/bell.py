"""The app of the tests of schedules: a bell that rings twice a second, and schedulers that die when told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camora import Camora, Context, every
from camora.interfaces.schedule import Fire, ScheduleStore

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


app = Camora(os.environ["SHOP_BROKER"])
store = type(app.broker.own_schedules())
assert store is not type(None)
claim_there, advance_there = store.claim, store.advance


async def claim(self: ScheduleStore, now: int, **wanted: Any) -> Sequence[Fire]:
    fires = await claim_there(self, now, **wanted)
    if fires:
        crash("claimed")
        block()
    return fires


async def advance(self: ScheduleStore, fire: Fire, **news: Any) -> bool:
    crash("sent")
    moved = await advance_there(self, fire, **news)
    crash("advanced")
    return moved


# Whatever store it is, it dies around its own calls.
store.claim, store.advance = claim, advance  # type: ignore[assignment, method-assign, union-attr]


@app.task(name="ring", queue="bells")
async def ring(ctx: Context) -> None:
    """One line for each time it runs."""
    line = f"{ctx.headers['camora.tick']} {ctx.id}\n"
    file = os.open(FOLDER / "rings", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


app.schedule("bell", ring.s(), every(seconds=0.5), catch_up="all")
