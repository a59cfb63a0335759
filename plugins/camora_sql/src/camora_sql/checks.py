"""The checks of `camora doctor`: every SQL database that an app uses, part by part. Light until one is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from camora.interfaces import Check, CheckResult

__all__ = ["checks"]

_PARTS = (
    ("place", 10.0),
    ("room", 10.0),
    ("log", 10.0),
    ("schema", 10.0),
    ("integrity", 120.0),
)
"""What is looked at, and the seconds it may take."""
_FIRST = "place"
"""Where it fails, the others could only say the same."""
_ORDER = 16
"""Before the core's look at the broker: they say why that may fail."""


def checks() -> Sequence[Check]:
    """All of them. They read the database by themselves, and so also say why a broker does not answer."""
    return [
        Check(
            name=f"database {part}",
            run=_of(part),
            order=_ORDER,
            timeout=timeout,
            offline=True,
            needs=() if part == _FIRST else (f"database {_FIRST}",),
        )
        for part, timeout in _PARTS
    ]


def _of(part: str) -> Callable[[Any], Awaitable[CheckResult]]:
    async def run(app: Any) -> CheckResult:
        databases = {store.url: store.database for store in (app.broker, app.results) if _is_ours(store)}
        if not databases:
            return CheckResult(ok=True, text="no SQL database in use")
        found = [
            await asyncio.to_thread(database.dialect.examinations()[part]) for _, database in sorted(databases.items())
        ]
        return next((one for one in found if not one.ok), None) or _together(found)

    return run


def _is_ours(store: Any) -> bool:
    # By the name of its class, which says it without the import of anything.
    return any(kind.__module__ in ("camora_sql.broker", "camora_sql.results") for kind in type(store).__mro__)


def _together(found: Sequence[CheckResult]) -> CheckResult:
    fixes = [one.fix for one in found if one.fix]
    return CheckResult(ok=True, text="; ".join(one.text for one in found), fix="; ".join(fixes))
