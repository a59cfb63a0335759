"""Deleting workflows: out of sight at once, and then in steps, because they may be large."""

from __future__ import annotations

from collections.abc import Sequence

from camora_sql.dialects.base import Need
from camora_sql.numbering import bounds
from camora_sql.session import Session
from camora_sql.statements import workflows as statements
from camora_sql.store import Store

__all__ = ["STEP", "prune_workflows"]

STEP = 500
"""Rows of each table that one transaction deletes at most: others want to write, too."""
_TOGETHER = 16
"""Workflows that one transaction clears at most."""
_TABLES = (statements.clear_nodes, statements.clear_feeds, statements.clear_waits, statements.clear_gates)


def prune_workflows(session: Session, store: Store) -> bool:
    """Delete some workflows whose time is over; True when there is more than one step takes. Blocks, as sessions do.

    May be done by any number of processes at the same moment: each takes others.
    """
    values = (store.now(), _TOGETHER)
    if not session.read(lambda session: session.rows(statements.some_over, values)):
        return False

    def step(session: Session) -> bool:
        rows = session.rows(statements.lock_over, values)
        if not rows:
            return False
        fresh = [seq for seq, state in rows if state != statements.DELETED]
        session.change_in(statements.retire, fresh)
        more = _clear(session, [seq for seq, _ in rows])
        return more or len(rows) == _TOGETHER

    return session.write(step, Need.NONE)


def _clear(session: Session, seqs: Sequence[int]) -> bool:
    """Delete some of what is in workflows that were retired, and them when nothing is left; True when something is."""
    left = STEP
    for seq in seqs:
        # One by one: of several ranges in one statement, databases look for all that is in them.
        counts = [session.change(build, (*bounds(seq), STEP)) for build in _TABLES]
        if max(counts) >= STEP:
            return True
        session.change_in(statements.delete_cleared, [seq])
        left -= sum(counts)
        if left <= 0:
            return True
    return False
