"""The checks of `camora doctor`: the namespace that an app uses, part by part. Light until one is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from camora.interfaces import Check, CheckResult

__all__ = ["checks"]

_FIRST = "namespace"
"""Where it fails, the others could only say the same."""
_PARTS = ("rights", "queues", "locks", "limits")
_ORDERS = (16, 42)
"""The first comes before the core's look at the broker, and says why that may fail; the others come last."""


def checks() -> Sequence[Check]:
    """All of them. They connect by themselves, and change nothing."""
    first = Check(name=f"servicebus {_FIRST}", run=_of(_FIRST), order=_ORDERS[0], timeout=60.0, offline=True)
    # What is not there yet keeps the broker from being opened, and they say so: they do without it.
    others = [
        Check(
            name=f"servicebus {part}", run=_of(part), order=_ORDERS[1], timeout=60.0, offline=True,
            needs=(f"servicebus {_FIRST}",),
        )
        for part in _PARTS
    ]  # fmt: skip
    return [first, *others]


def _of(part: str) -> Callable[[Any], Awaitable[CheckResult]]:
    async def run(app: Any) -> CheckResult:
        # By the name of its class, which says it without the import of anything.
        if not any(kind.__module__ == "camora_servicebus.broker" for kind in type(app.broker).__mro__):
            return CheckResult(ok=True, text="no Azure Service Bus in use")
        from camora_servicebus.examining import examine

        return await examine(part, app)

    return run
