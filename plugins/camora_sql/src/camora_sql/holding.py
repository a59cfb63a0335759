"""Workflows that a transaction keeps from all others: what is read of them then is so until its end."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from camora_sql.session import Session
from camora_sql.statements import workflows as statements

__all__ = ["Held", "hold"]


@attrs.define(kw_only=True)
class Held:
    """A workflow's row, but for what is large."""

    id: str
    seq: int
    state: str
    changed: int
    until: int | None
    nodes: int
    open: int

    def is_over(self, now: int) -> bool:
        """Whether it is kept no longer."""
        return self.until is not None and self.until <= now

    def touch(self, now: int) -> int:
        """When it was last written to, now that it is."""
        self.changed = max(self.changed, now)
        return self.changed


def hold(session: Session, ids: Iterable[str], at: int) -> dict[str, Held]:
    """Those of these workflows that there are at this moment of the store's clock, by id.

    All of them are locked in one order, whoever wants which: so nobody waits for somebody who waits for them.
    """
    found = {}
    for job_id, seq, state, changed, until, nodes, open_ in session.rows_in(
        statements.lock_workflows, sorted(set(ids))
    ):
        held = Held(id=job_id, seq=seq, state=state, changed=changed, until=until, nodes=nodes, open=open_)
        if not held.is_over(at):
            found[held.id] = held
    return found
