"""What `camora doctor` looks at: whether there is a store for workflows, and whether one of them stands still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camora.interfaces import Check, CheckResult, WorkflowStore

__all__ = ["checks"]

_LIST = 100
_STILL = 24 * 3600.0
"""Seconds without a change after which a running workflow is worth a word."""
_NO_STORE = (
    "neither the broker nor the result backend keeps workflows: chains and callbacks work, and whatever has jobs side "
    "by side is refused when it is dispatched"
)


def checks() -> Sequence[Check]:
    """One, which changes nothing."""
    return [Check(name="workflows", run=_look, order=45, timeout=20.0)]


async def _look(app: Any) -> CheckResult:
    found = _store_of(app)
    if found is None:
        return CheckResult(ok=True, text=_NO_STORE)
    keeper, store = found
    await store.open()
    try:
        return await _judge(app, keeper, store)
    finally:
        await store.close()


def _store_of(app: Any) -> tuple[Any, WorkflowStore] | None:
    for keeper in (app.broker, app.results):
        store = None if keeper is None else keeper.own_workflows()
        if store is not None:
            return keeper, store
    return None


async def _judge(app: Any, keeper: Any, store: WorkflowStore) -> CheckResult:
    before = app.clock.now_ms() - round(_STILL * 1000)
    still = [record.id for record in await store.list(state="running", changed_before=before, limit=_LIST)]
    if not still:
        return CheckResult(ok=True, text=f"workflows are kept in {keeper!r}; none stands still")
    count = "1 workflow has" if len(still) == 1 else f"{len(still)} workflows have"
    return CheckResult(
        ok=False,
        text=f"{'at least ' if len(still) == _LIST else ''}{count} not changed for a day, such as {still[0]}: they may "
        "wait for a job that sleeps or never ends, or somebody has emptied a queue",
        fix="camora workflow show ID tells what is waited for; camora workflow recover goes on with what was lost",
    )
