"""The checks of `camora doctor`: every Redis or Valkey that an app uses, part by part. Light until one is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from camora.interfaces import Check, CheckResult

__all__ = ["checks"]

_FIRST = "server"
"""Where it fails, the others could only say the same."""
_PARTS = ("memory", "persistence", "copies", "clock", "consumers", "queues")
_ORDERS = (16, 40)
"""The first comes before the core's look at the broker, and says why that may fail; the others come last."""


def checks() -> Sequence[Check]:
    """All of them. They connect by themselves, and change nothing."""
    first = Check(name=f"redis {_FIRST}", run=_of(_FIRST), order=_ORDERS[0], timeout=20.0, offline=True)
    others = [
        Check(name=f"redis {part}", run=_of(part), order=_ORDERS[1], timeout=20.0, needs=(f"redis {_FIRST}",))
        for part in _PARTS
    ]
    return [first, *others]


def _of(part: str) -> Callable[[Any], Awaitable[CheckResult]]:
    async def run(app: Any) -> CheckResult:
        stores = {one.database.identity: one.database for one in (app.results, app.broker) if _is_ours(one)}
        if not stores:
            return CheckResult(ok=True, text="no Redis in use")
        from camora_redis import examining

        holding = app.broker.database.identity if _is_ours(app.broker) else None
        found = [
            await examining.examine(part, store.careful(_copies(app)), holds_jobs=True)
            if identity == holding
            else await examining.examine(part, store, holds_jobs=False)
            for identity, store in sorted(stores.items(), key=lambda item: item[1].label)
        ]
        return next((one for one in found if not one.ok), None) or _together(found)

    return run


def _copies(app: Any) -> int:
    """How many replicas the most careful task of the app waits for."""
    owned = [task.owned for task in app.tasks.by_name.values() if task.owned]
    return max((options.get("wait_replicas", 0) for options in owned), default=0)


def _is_ours(store: Any) -> bool:
    # By the name of its class, which says it without the import of anything.
    return any(kind.__module__ in ("camora_redis.broker", "camora_redis.results") for kind in type(store).__mro__)


def _together(found: Sequence[CheckResult]) -> CheckResult:
    fixes = dict.fromkeys(one.fix for one in found if one.fix)
    return CheckResult(ok=True, text="; ".join(one.text for one in found), fix="; ".join(fixes))
