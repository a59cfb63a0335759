"""The checks of `camora doctor`: every SQL database that an app uses, part by part. Light until one is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
from camora.interfaces import Check, CheckResult

from camora_sql.databases import databases_of

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
        databases = databases_of(app)
        if not databases:
            return CheckResult(ok=True, text="no SQL database in use")
        found = [
            _told(section, await asyncio.to_thread(store.dialect.examinations(section)[part]))
            for section, store in databases.items()
        ]
        return next((one for one in found if not one.ok), None) or _together(found)

    return run


def _told(section: str, found: CheckResult) -> CheckResult:
    # The broker's is what one thinks of first; another one is named.
    return found if section == "broker" else attrs.evolve(found, text=f"[{section}] {found.text}")


def _together(found: Sequence[CheckResult]) -> CheckResult:
    fixes = [one.fix for one in found if one.fix]
    return CheckResult(ok=True, text="; ".join(one.text for one in found), fix="; ".join(fixes))
