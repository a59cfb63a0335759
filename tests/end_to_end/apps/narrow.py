"""The app of the tests of limits: imported by real worker processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from camora import Camora

FOLDER = Path(os.environ["SHOP_FOLDER"])

app = Camora(os.environ["SHOP_BROKER"])


@contextmanager
def span() -> Iterator[None]:
    """Notes when it was inside; the clock is the same for all processes of a machine."""
    begin = time.monotonic()
    try:
        yield
    finally:
        with (FOLDER / f"spans-{os.getpid()}").open("a") as file:
            file.write(f"{begin} {time.monotonic()}\n")


@app.task(name="narrow", max_concurrency=2)
async def narrow(number: int) -> None:
    with span():
        await asyncio.sleep(0.02)


@app.task(name="hold", max_concurrency=1)
async def hold(name: str) -> None:
    (FOLDER / f"started-{name}-{os.getpid()}").touch()
    while not (FOLDER / f"release-{name}").exists():
        await asyncio.sleep(0.01)


@app.task(name="block", max_concurrency=1)
async def block(seconds: float) -> None:
    (FOLDER / f"started-block-{os.getpid()}").touch()
    with span():
        time.sleep(seconds)
