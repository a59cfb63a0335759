"""What is to be said of a queue as it was found: what keeps jobs from running, and what could be better. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from camora_servicebus.admin import Counts
from camora_servicebus.differences import Change, Wanted
from camora_servicebus.messages import TO
from camora_servicebus.properties import text_of

__all__ = ["APPLY", "advice", "defects", "lock_advice", "text_of_entity"]

APPLY = "camora servicebus apply"
_FULL = 0.8
"""Of an entity's size, from which on it is worth a word."""
_SHORT = 15.0
"""Seconds: a shorter lock is lost with a connection that takes its time to come back."""
_GOOD, _LONGEST_LOCK = 30.0, 300.0


def text_of_entity(wanted: Wanted, there: Mapping[str, Any], counts: Counts | None) -> str:
    """A queue, a topic or a subscription in a few words."""
    parts = []
    if wanted.kind != "topic":
        parts += [
            f"lock {text_of('lock_duration', there['lock_duration'])}",
            f"{there['max_delivery_count']} deliveries",
            "sessions" if there["sessions"] else "no sessions",
        ]
    if wanted.kind != "subscription":
        detects = there["duplicate_detection"]
        after = text_of("duplicate_detection", detects)
        parts.append(f"duplicates known for {after}" if detects else "no duplicate detection")
    if counts is not None and wanted.kind != "topic":
        held = ((counts.active, "waiting"), (counts.scheduled, "scheduled"), (counts.dead, "dead"))
        parts += [f"{count} {word}" for count, word in held if count or word == "waiting"]
    return f"{'' if wanted.kind == 'queue' else f'{wanted.kind} '}{wanted.name} ({', '.join(parts)})"


def defects(wanted: Wanted, there: Mapping[str, Any], max_deliveries: int) -> list[tuple[str, str]]:
    """What keeps jobs from running, each with what mends it."""
    entity, found = wanted.entity, []
    if there["status"] != "Active":
        found.append((f"{entity} is {there['status']}", "have its owner make it Active again"))
    if wanted.kind == "topic":
        return found
    if (target := there["forward_to"]) is not None:
        text = f"{entity} forwards all to {target!r}, and has nothing for workers"
        found.append((text, f"let tasks name {target!r} instead, or have its owner stop the forwarding"))
    if (count := there["max_delivery_count"]) <= max_deliveries:
        text = (
            f"{entity}: after {count} deliveries the service itself moves a job to the dead letters; a worker does so "
            f"after {max_deliveries} (max_deliveries), with the reason"
        )
        fix = (
            f"declare {wanted.name} with max_delivery_count={2 * max_deliveries}, then {APPLY}; or lower max_deliveries"
        )
        found.append((text, fix))
    return found


def advice(change: Change, there: Mapping[str, Any], counts: Counts | None) -> list[str]:
    """What could be better."""
    found, entity = [], change.wanted.entity
    if change.action == "change":
        found.append(f"{entity} is not as declared ({', '.join(map(str, change.differences))}): {APPLY}")
    # What a topic lets expire goes where its subscriptions say.
    if not math.isinf(there["time_to_live"]) and not there.get("dead_letter_expired", True):
        after = text_of("time_to_live", there["time_to_live"])
        found.append(
            f"{entity} drops jobs after {after} without a trace: declare {change.wanted.name} with "
            f"dead_letter_expired=True, then {APPLY}"
        )
    if change.wanted.kind == "subscription" and TO not in there["filter"]:
        found.append(
            f"{entity} has a filter of its owner's, in which {TO} is not: retries of its jobs may not pass it, and "
            f"those of other subscriptions may; have its owner add {TO} = '{change.wanted.path[-1]}' OR … to it"
        )
    if counts is not None and there.get("max_size") and counts.bytes > _FULL * there["max_size"]:
        full = 100 * counts.bytes // there["max_size"]
        found.append(f"{entity} is {full} % full: start workers, purge its dead letters, or raise max_size")
    return found


def lock_advice(locks: Mapping[str, float], lease: float) -> list[str]:
    """Of entities, and the seconds for which they lock a message."""
    found = []
    if short := [entity for entity, lock in locks.items() if lock < _SHORT]:
        found.append(
            f"a connection that is away for a moment loses the locks of {', '.join(short)}: declare "
            f"lock_duration={_GOOD:g} or more, then {APPLY}"
        )
    fitting = min(max(lease, _GOOD), _LONGEST_LOCK)
    least = max(_SHORT, min(lease, _LONGEST_LOCK))
    if other := [entity for entity, lock in locks.items() if lock >= _SHORT and not least <= lock <= 2 * fitting]:
        found.append(
            f"of {', '.join(other)} the lock decides when the jobs of a silent worker start elsewhere, not the lease: "
            f"declare lock_duration={fitting:g}, then {APPLY}"
        )
    return found
