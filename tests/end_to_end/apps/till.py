"""The app of the inbox's fault tests: each job writes a row into a table of its own; a process dies as it is told."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from camora import Camora, Context, dependency
from camora_sql import Inbox
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

FOLDER = Path(os.environ["SHOP_FOLDER"])
ENGINE = create_engine(os.environ["TILL_DATABASE"])
ASYNC_ENGINE = create_async_engine(os.environ["TILL_ASYNC_DATABASE"])


def session() -> Iterator[Session]:
    with Session(ENGINE) as made:
        yield made


async def async_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(ASYNC_ENGINE) as made:
        yield made


app = Camora(
    os.environ["SHOP_BROKER"],
    dependencies=[dependency(session, scope="job"), dependency(async_session, scope="job")],
)
PAY = text("INSERT INTO payments (job, amount) VALUES (:job, :amount)")


@app.task(name="pay")
def pay(ctx: Context, amount: int, session: Annotated[Session, Inbox]) -> int:
    """Pay, in a thread."""
    session.execute(PAY, {"job": ctx.id, "amount": amount})
    return amount


@app.task(name="pay_async")
async def pay_async(ctx: Context, amount: int, session: Annotated[AsyncSession, Inbox]) -> int:
    """Pay, in the loop."""
    await session.execute(PAY, {"job": ctx.id, "amount": amount})
    return amount


if os.environ.get("SHOP_CRASH") == "after commit":
    around = Inbox.around

    async def around_and_die(self: Inbox, *args: Any) -> Any:
        """Commit, and die before anybody hears of it."""
        await around(self, *args)
        os.kill(os.getpid(), signal.SIGKILL)

    Inbox.around = around_and_die  # type: ignore[method-assign]
