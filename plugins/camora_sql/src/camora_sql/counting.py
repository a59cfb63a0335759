"""Rates and slots in tables, inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from camora.interfaces.limits import Ask

from camora_sql.session import Session
from camora_sql.statements import limits as statements
from camora_sql.tally import Rate, Tally, granted_now

__all__ = ["begin_anew", "put_rate", "read_rates", "read_tally"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[int, int]]).decode


def begin_anew(session: Session, now: int) -> None:
    """The lease clock began again: nobody holds a slot any more, and what was granted was granted just now."""
    session.change(statements.end_slots)
    for name, rate in _from_rows(session.rows(statements.all_rates)).items():
        put_rate(session, name, granted_now(sum(count for _, count in rate.grants), now, per=rate.per), now)


def read_tally(session: Session, asks: Sequence[Ask], now: int) -> Tally:
    """What is used of all limits that these asks are about."""
    limits = {limit.name: limit for ask in asks for limit in ask.limits}
    rates = [name for name, limit in limits.items() if limit.per]
    slots = [name for name, limit in limits.items() if not limit.per]
    counts = session.rows_in(statements.count_slots, slots, (now,))
    mine = session.rows_in(statements.slots_of, [ask.holder for ask in asks]) if slots else []
    return Tally(
        now=now,
        rates=read_rates(session, rates),
        held={name: (count, lapses) for name, count, lapses in counts},
        holding={(name, holder) for holder, name, until in mine if until > now},
    )


def read_rates(session: Session, names: Sequence[str]) -> dict[str, Rate]:
    """Those of these rates that anything was granted of."""
    return _from_rows(session.rows_in(statements.read_rates, names))


def _from_rows(rows: Sequence[Any]) -> dict[str, Rate]:
    return {name: Rate(per, _decode(grants)) for name, per, grants in rows}


def put_rate(session: Session, name: str, rate: Rate, now: int) -> None:
    """Store what was granted of a rate."""
    session.change(statements.put_rate, (name, rate.per, _encode(rate.grants).decode(), rate.empty_at(now)))
