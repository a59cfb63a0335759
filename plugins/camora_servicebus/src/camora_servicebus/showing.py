"""What `camora servicebus apply` prints: the changes as a person reads them, and as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from camora_servicebus.admin import Tier
from camora_servicebus.differences import Change
from camora_servicebus.properties import text_of

__all__ = ["as_data", "as_lines", "counted", "done_line", "head_line"]

_SIGNS = {"create": "+", "change": "~", "same": " ", "impossible": "!", "missing": "!"}
_WORDS = {"create": ("to make", "made"), "change": ("to change", "changed"), "same": ("as declared", "as declared")}


def head_line(label: str, tier: Tier) -> str:
    """The namespace."""
    units = f", {tier.units} messaging unit{'' if tier.units == 1 else 's'}" if tier.units else ""
    return label if tier.tier == "unknown" else f"{label} ({tier.tier}{units})"


def as_lines(changes: Sequence[Change]) -> Iterator[str]:
    """A diff: an entity in a line, and below it what is made or changed."""
    for change in changes:
        yield f"{_SIGNS[change.action]} {_who(change)}{'' if change.differences else _why_none(change)}"
        for one in change.differences:
            if change.action == "create":
                yield f"    {one.name}: {text_of(one.name, one.after)}"
            else:
                yield f"    {one}{' (cannot be changed)' if one.fixed else ''}"


def _who(change: Change) -> str:
    wanted = change.wanted
    return f"{wanted.kind} {wanted.name}" + ("" if wanted.entity == wanted.name else f" ({wanted.entity})")


def _why_none(change: Change) -> str:
    if change.action == "missing":
        return ": somebody else's, and it is not there"
    if change.action == "same":
        return ": as declared" if change.wanted.ours else ": somebody else's, left alone"
    return ""


def done_line(change: Change) -> str:
    """One entity after it was made or changed."""
    return f"{_who(change)}: {_WORDS[change.action][1]}"


def counted(changes: Sequence[Change], *, done: bool) -> str:
    """How many of each: `1 to make, 2 as declared`."""
    counts = Counter(change.action for change in changes)
    parts = [f"{counts[action]} {words[done]}" for action, words in _WORDS.items() if counts[action]]
    return ", ".join(parts) or "nothing is declared"


def as_data(change: Change, *, done: bool) -> dict[str, Any]:
    """One change for `--json`; values are texts, as in the diff."""
    return {
        "kind": change.wanted.kind,
        "name": change.wanted.name,
        "entity": change.wanted.entity,
        "action": change.action,
        "done": done,
        "differences": [
            {
                "property": one.name,
                "before": None if change.action == "create" else text_of(one.name, one.before),
                "after": text_of(one.name, one.after),
            }
            for one in change.differences
        ],
    }
