"""An app whose jobs belong to sessions; what they do stands in a ledger."""

from __future__ import annotations

import asyncio
import os
import signal

from camora import AppSettings, Camora, Context, RetryPolicy
from camora.testing.ledger import Ledger
from camora_servicebus import ServiceBusQueue, SessionState, session_state

app = Camora(
    os.environ["SHOP_BROKER"],
    results=False,
    queues=[ServiceBusQueue("ordered", sessions=True)],
    dependencies=[session_state],
    settings=AppSettings(dispatch_timeout=30),
    retry_policy=RetryPolicy(max_tries=1000, delay=0.2, jitter=False),
)
ledger = Ledger(f"{os.environ['SHOP_FOLDER']}/ledger")


@app.task(name="step", queue="ordered")
async def step(number: int, *, ctx: Context, state: SessionState) -> None:
    """Every third one fails at first. The state of the session says which came last."""
    ledger.started(ctx.id, ctx.attempt)
    last = int(state.get() or -1)
    assert last in (number - 1, number), f"{number} after {last}"
    await state.set(str(number).encode())
    await asyncio.sleep(0.02)
    if number % 3 == 1 and ctx.attempt < 3:
        raise ConnectionError("not yet")
    ledger.finished(ctx.id, ctx.attempt)


@app.task(name="die", queue="ordered")
async def die(*, ctx: Context) -> None:
    """It takes its worker along."""
    ledger.started(ctx.id, ctx.attempt)
    os.kill(os.getpid(), signal.SIGKILL)
