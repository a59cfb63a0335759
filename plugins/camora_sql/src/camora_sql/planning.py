"""Schedules as rows, and what may take whose place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from camora.errors import ConfigurationError
from camora.interfaces.schedule import ScheduleRecord

__all__ = ["record_from", "replaced", "row_of"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def row_of(record: ScheduleRecord) -> tuple[Any, ...]:
    """The values of its columns, in their order."""
    return (
        record.key,
        record.group,
        _encode(record.trigger).decode(),
        record.task,
        record.queue,
        record.message,
        record.origin,
        record.app,
        record.catch_up,
        record.overlap,
        int(record.paused),
        record.last,
        record.last_job,
        record.next,
        record.version,
    )


def record_from(row: Sequence[Any]) -> ScheduleRecord:
    """The record of a row; what follows its own columns is passed over."""
    key, group, trigger, task, queue, message, origin, app, catch_up, overlap, paused, *rest = row
    last, last_job, next_tick, version = rest[:4]
    return ScheduleRecord(
        key=key,
        group=group,
        trigger=_decode(trigger),
        task=task,
        queue=queue,
        message=message,
        origin=origin,
        app=app,
        catch_up=catch_up,
        overlap=overlap,
        paused=bool(paused),
        last=last,
        last_job=last_job,
        next=next_tick,
        version=version,
    )


def replaced(old: ScheduleRecord | None, given: ScheduleRecord) -> ScheduleRecord | None:
    """What is to be stored when this one is put; None when it changes nothing.

    Raises `ConfigurationError` when it cannot take the place of the old one. The trigger comes out as it will be read
    again: a tuple in it is a list there, and is no change.
    """
    trigger = _decode(_encode(given.trigger))
    if old is None:
        return msgspec.structs.replace(given, trigger=trigger, version=1)
    _refuse_clash(old, given)
    new = msgspec.structs.replace(
        given,
        trigger=trigger,
        last=old.last,
        last_job=old.last_job,
        paused=old.paused,
        next=old.next if trigger == old.trigger else given.next,
        version=old.version,
    )
    return None if new == old else msgspec.structs.replace(new, version=old.version + 1)


def _refuse_clash(old: ScheduleRecord, given: ScheduleRecord) -> None:
    if (old.origin == "runtime") is not (given.origin == "runtime"):
        raise ConfigurationError(
            f"the key {given.key!r} is taken by a schedule of origin {old.origin!r} (app {old.app!r}), which one of "
            f"origin {given.origin!r} must not replace; use another key, or remove that one: "
            f"camora schedules remove {given.key}"
        )
    if given.origin != "runtime" and given.app != old.app:
        raise ConfigurationError(
            f"the key {given.key!r} is taken by a schedule that app {old.app!r} declares (origin {old.origin!r}), and "
            f"app {given.app!r} must not replace it; use another key, or, when {old.app!r} is no more: "
            f"camora schedules remove {given.key}"
        )
