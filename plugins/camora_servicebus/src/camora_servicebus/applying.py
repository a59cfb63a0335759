"""Making entities what an app wants them to be: what would be done first, then doing it. Nothing is ever deleted."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

from camora.errors import ConfigurationError

from camora_servicebus.admin import Admin
from camora_servicebus.admin_errors import Conflict
from camora_servicebus.differences import Change, Wanted, compared
from camora_servicebus.properties import text_of

__all__ = ["carried_out", "checked", "create_missing", "planned", "problem_of"]

_ROUNDS = 6
"""How often it is said of one entity what it is to be, while others change it, too."""
_PAUSE = 0.5
"""Seconds between these looks, about."""


async def planned(admin: Admin, wanted: Sequence[Wanted]) -> list[Change]:
    """What is to be done, in the order in which it can be done. Changes nothing."""
    return [compared(one, await admin.find(one.kind, one.path)) for one in _in_order(wanted)]


def checked(changes: Sequence[Change], label: str) -> None:
    """Raises one `ConfigurationError` for all that cannot be done, with both sides of each."""
    problems = [text for text in map(problem_of, changes) if text]
    if problems:
        listed = "\n  ".join(problems)
        raise ConfigurationError(f"{label}: nothing was changed, because this cannot be:\n  {listed}")


async def carried_out(admin: Admin, changes: Sequence[Change]) -> AsyncIterator[Change]:
    """Do it, one after the other; yields each change once it is done, or was found done by somebody else.

    Stops at the first that fails: what was done stays, and a repetition goes on from there.
    """
    for change in changes:
        if change.action != "same":
            await _carry_out(admin, change.wanted)
        yield change


async def create_missing(admin: Admin, wanted: Sequence[Wanted]) -> list[str]:
    """Make what is not there, and leave alone what is; returns the names of what was made."""
    made = []
    for one in _in_order(wanted):
        if one.ours and await admin.find(one.kind, one.path) is None:
            try:
                await admin.create(one.kind, one.path, one.initial)
            except Conflict:
                continue  # somebody else was faster
            made.append(one.entity)
    return made


async def _carry_out(admin: Admin, wanted: Wanted) -> None:
    """Until it is found as wanted: the answer may have been lost, and somebody else may do the same."""
    for turn in range(_ROUNDS + 1):
        change = compared(wanted, await admin.find(wanted.kind, wanted.path))
        if problem := problem_of(change):
            raise ConfigurationError(f"somebody else was faster: {problem}")
        if change.action == "same":
            return
        if turn == _ROUNDS:
            break
        if turn:
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 -- so that two do not keep step
        with contextlib.suppress(Conflict):
            if change.action == "create":
                await admin.create(wanted.kind, wanted.path, wanted.initial)
            else:
                await admin.change(wanted.kind, wanted.path, {one.name: one.after for one in change.differences})
    raise ConfigurationError(
        f"{wanted.kind} {wanted.name!r} ({wanted.entity}) does not become what is declared, however often it is said: "
        f"{', '.join(map(str, change.differences))}. Does something else change it, or does the tier of the namespace "
        "not allow it?"
    )


def problem_of(change: Change) -> str:
    """What cannot be, and what to do about it; empty where all can."""
    wanted = change.wanted
    who = f"{wanted.kind} {wanted.name!r} ({wanted.entity})"
    if change.action == "missing":
        return (
            f"{who} does not exist, and with declare=False it is not made: have its owner make it, or leave "
            "declare=False out"
        )
    if change.action != "impossible":
        return ""
    sides = "; ".join(
        f"{one.name} is {text_of(one.name, one.before)!r} on the service, and {text_of(one.name, one.after)!r} here"
        for one in change.differences
        if one.fixed
    )
    return (
        f"{who}: {sides}. That is decided when it is made: declare it as it is there, give it another name, or delete "
        "it there once it is empty"
    )


def _in_order(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Topics before their subscriptions, and what is forwarded to before what forwards."""
    places = {one.path: number for number, one in enumerate(wanted)}
    depths: dict[tuple[str, ...], int] = {}

    def depth(one: Wanted, above: frozenset[tuple[str, ...]]) -> int:
        if one.path in depths:
            return depths[one.path]
        if one.path in above:
            return 0  # in a circle; the service says what it thinks of that
        behind = [(one.said[name],) for name in ("forward_to", "forward_dead_letters_to") if one.said.get(name)]
        targets = [*behind, one.path[:-1]]
        above |= {one.path}
        found = 1 + max((depth(wanted[places[path]], above) for path in targets if path in places), default=-1)
        depths[one.path] = found
        return found

    return sorted(wanted, key=lambda one: (depth(one, frozenset()), one.kind, one.entity))
