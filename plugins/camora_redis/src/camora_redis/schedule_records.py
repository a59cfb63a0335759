"""Schedules as they lie in the store: what was declared and what happened since, apart; and what may replace what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from camora.errors import ConfigurationError
from camora.interfaces.schedule import CatchUp, Overlap, ScheduleRecord

__all__ = ["records_from", "replacing", "text_of"]


class _Definition(msgspec.Struct, frozen=True, array_like=True):
    """What a schedule was declared to be. What happened to it is its state, which scripts keep."""

    group: str
    trigger: dict[str, Any]
    task: str
    queue: str
    message: bytes
    origin: str
    app: str
    catch_up: CatchUp
    overlap: Overlap


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Definition).decode
_decode_state = msgspec.msgpack.Decoder(list[Any]).decode


def text_of(moment: int | None) -> str:
    """A moment as scripts are given it."""
    return "" if moment is None else str(moment)


def records_from(answer: Sequence[bytes]) -> list[ScheduleRecord]:
    """The records in the answer of a script: key, definition and state of each."""
    return [_record(*answer[at : at + 3]) for at in range(0, len(answer), 3)]


def _record(key: bytes, packed: bytes, state: bytes) -> ScheduleRecord:
    _, version, paused, last, last_job, next_tick, _ = _decode_state(state)
    return ScheduleRecord(
        key=key.decode(),
        **msgspec.structs.asdict(_decode(packed)),
        version=version,
        paused=paused,
        # False is what a script has for nothing.
        last=None if last is False else last,
        last_job=last_job,
        next=None if next_tick is False else next_tick,
    )


def replacing(known: Mapping[str, bytes | None], records: Sequence[ScheduleRecord]) -> Iterator[Any]:
    """The words of those that change something (see `schedule_change.lua`); `known` are the definitions there are.

    Raises `ConfigurationError` for one that must not replace another one.
    """
    replaced: dict[str, _Definition] = {}
    for record in records:
        key, expected = record.key, "-"
        packed = _encode(_Definition(*(getattr(record, name) for name in _Definition.__struct_fields__)))
        # As it will be read again: a tuple in a trigger is a list there, and is no change.
        new, old = _decode(packed), replaced.get(key)
        if old is None and (before := known[key]) is not None:
            old, expected = _decode(before), hashlib.sha1(before, usedforsecurity=False).hexdigest()
        elif old is None:
            expected = ""
        if old is not None:
            _refuse_clash(key, old, new)
        if new == old:
            continue
        replaced[key] = new
        planned_anew = old is None or new.trigger != old.trigger
        yield from (key, expected, packed, new.group, int(planned_anew), text_of(record.next))
        yield from (int(record.paused), text_of(record.last), record.last_job)


def _refuse_clash(key: str, old: _Definition, new: _Definition) -> None:
    if (old.origin == "runtime") is not (new.origin == "runtime"):
        raise ConfigurationError(
            f"there is a schedule {key!r} of origin {old.origin!r} (app {old.app!r}) already, and one of origin "
            f"{new.origin!r} does not replace it. Use another key, or remove that one: camora schedules remove {key}"
        )
    if new.origin != "runtime" and new.app != old.app:
        raise ConfigurationError(
            f"there is a schedule {key!r} (origin {old.origin!r}) already, which app {old.app!r} declares; app "
            f"{new.app!r} does not replace it. Use another key, or, if {old.app!r} is no more: "
            f"camora schedules remove {key}"
        )
