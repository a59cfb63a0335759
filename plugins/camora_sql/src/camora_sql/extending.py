"""Making leases longer. Runs in a transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from camora.message import Delivery

from camora_sql import statements
from camora_sql.session import Session

__all__ = ["extend"]


def extend(session: Session, deliveries: Sequence[Delivery], until: int) -> dict[tuple[int, int], int]:
    """Make leases last until then; those that were still held, by place and token, with that."""
    by_token: dict[int, list[int]] = defaultdict(list)
    for delivery in deliveries:
        by_token[delivery.receipt[1]].append(delivery.receipt[0])
    held: dict[tuple[int, int], int] = {}
    for token, seqs in by_token.items():
        if session.change_in(statements.extend_held, seqs, (until, token)) < len(set(seqs)):
            seqs = [row[0] for row in session.rows_in(statements.still_held, seqs, (token,))]
        held.update(((seq, token), until) for seq in seqs)
    return held
