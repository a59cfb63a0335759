"""Making leases longer. Runs in a transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from camora.message import Delivery

from camora_sql import statements
from camora_sql.session import Session

__all__ = ["extend"]


def extend(session: Session, deliveries: Sequence[Delivery], until: int) -> set[tuple[int, int]]:
    """Make leases last until then; the place and token of those that were still held. Runs in a transaction."""
    by_token: dict[int, list[int]] = defaultdict(list)
    for delivery in deliveries:
        by_token[delivery.receipt[1]].append(delivery.receipt[0])
    held: set[tuple[int, int]] = set()
    for token, seqs in by_token.items():
        if session.change_in(statements.extend_held, seqs, (until, token)) < len(set(seqs)):
            seqs = [row[0] for row in session.rows_in(statements.still_held, seqs, (token,))]
        held.update((seq, token) for seq in seqs)
    return held
