"""The app of the outbox's fault tests: its broker kills the process around each step of a relay, once."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camora import Camora, Context
from camora.interfaces import Broker, Consumer
from camora.message import Envelope
from camora.testing.ledger import Ledger

FOLDER = Path(os.environ["SHOP_FOLDER"])
CRASH = os.environ.get("SHOP_CRASH", "")


def crash_once(step: str) -> None:
    """Die by SIGKILL, once in the life of the folder, at the step that was asked for."""
    if step == CRASH:
        try:
            (FOLDER / "crashed").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def around(target: Any, method: str, step: str) -> None:
    """Have this method of an object die before or after it did its work, if that was asked for."""
    real = getattr(target, method)

    async def wrapped(*args: Any) -> Any:
        crash_once(f"before {step}")
        answer = await real(*args)
        crash_once(f"after {step}")
        return answer

    setattr(target, method, wrapped)


app = Camora(os.environ["SHOP_BROKER"], outbox=os.environ["SHOP_OUTBOX"], results=False)
publish = app.broker.publish


async def publish_and_crash(envelopes: Sequence[Envelope]) -> Sequence[str]:
    """What the relay does; dispatches of jobs themselves there are none here."""
    crash_once("before publish")
    ids = await publish(envelopes)
    crash_once("after publish")
    return ids


app.broker.publish = publish_and_crash  # type: ignore[method-assign]
assert app.outbox is not None
twin = app.outbox.broker.twin


def twin_that_crashes() -> Broker:
    """The outbox as the relay opens it."""
    made = twin()
    consumer = made.consumer

    async def consume(settings: Any) -> Consumer:
        found = await consumer(settings)
        around(found, "settle", "settle")
        return found

    made.consumer = consume  # type: ignore[method-assign]
    return made


app.outbox.broker.twin = twin_that_crashes  # type: ignore[method-assign,assignment]
_ledgers: list[Ledger] = []


@app.task(name="carry")
async def carry(ctx: Context, number: int) -> int:
    """Run, and say so in the ledger."""
    if not _ledgers:
        _ledgers.append(Ledger(FOLDER / "ledger"))
    with _ledgers[0].run(ctx.id, ctx.attempt):
        return number
