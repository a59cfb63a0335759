"""What all commands share, in one place to import from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from camora.cli.codes import DEFECT, FAILED, INTERRUPTED, MISTAKE, NOT_FOUND, OK
from camora.cli.finding import find_app, import_app
from camora.cli.options import AppOption, ConfigOption, JsonOption, ProfileOption, Where, YesOption
from camora.cli.output import confirm, item, note, print_json, progress, say, stderr, stdout, table, waiting
from camora.masking import masked, masked_data

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.connections import Connection

__all__ = [
    "DEFECT",
    "FAILED",
    "INTERRUPTED",
    "MISTAKE",
    "NOT_FOUND",
    "OK",
    "AppOption",
    "ConfigOption",
    "JsonOption",
    "ProfileOption",
    "Where",
    "YesOption",
    "confirm",
    "connection_of",
    "find_app",
    "import_app",
    "item",
    "masked",
    "masked_data",
    "note",
    "print_json",
    "progress",
    "run",
    "say",
    "stderr",
    "stdout",
    "table",
    "waiting",
]

T = TypeVar("T")


async def connection_of(app: Camora) -> Connection:
    """The stores of the app, open in this loop: for looking at what no public method shows."""
    return await app._connections.get()  # noqa: SLF001 -- one unit with the app


def run(work: Callable[[Camora], Awaitable[T]], app: Camora) -> T:
    """Run `work(app)` in an event loop of its own, with the app open around it; returns what it returns."""
    if not app.broker.capabilities.shared:
        note("this app's broker lives in one process: nothing of other processes is seen here")

    async def inside() -> T:
        async with app:
            return await work(app)

    return asyncio.run(inside())
