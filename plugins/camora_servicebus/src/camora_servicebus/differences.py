"""What is between an entity as it is wanted and as it is. Pure: nothing is asked, nothing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from camora_servicebus.properties import KINDS, Kind, text_of
from camora_servicebus.topics import path_of

__all__ = ["Change", "Difference", "Wanted", "compared"]

_PARTITIONS = 16
"""A partitioned entity of the Standard tier says the size of all of its partitions together."""


@attrs.frozen(kw_only=True)
class Wanted:
    """An entity as an app wants it: `said` must hold; `otherwise` is what a new one gets where nothing is said.

    `path` is its name on the service, that of a subscription behind its topic's. What is not `ours` is somebody
    else's: it must exist.
    """

    kind: str
    name: str
    path: tuple[str, ...]
    said: Mapping[str, Any] = attrs.field(factory=dict)
    otherwise: Mapping[str, Any] = attrs.field(factory=dict)
    ours: bool = True

    @property
    def initial(self) -> dict[str, Any]:
        """What it is made with."""
        return {**self.otherwise, **self.said}

    @property
    def entity(self) -> str:
        """Its name on the service."""
        return path_of(*self.path) if self.kind == "subscription" else self.path[0]


@attrs.frozen
class Difference:
    """One property as it is and as it is wanted; None for what there is none of."""

    name: str
    before: Any
    after: Any
    fixed: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {text_of(self.name, self.before)} → {text_of(self.name, self.after)}"


@attrs.frozen(kw_only=True)
class Change:
    """What is to be done for one entity: `create`, `change`, nothing (`same`), or what cannot be done.

    `impossible`: a property differs that cannot be changed; `missing`: somebody else's, and it is not there.
    """

    wanted: Wanted
    action: str
    differences: Sequence[Difference] = ()


def compared(wanted: Wanted, found: Mapping[str, Any] | None) -> Change:
    """What is to be done, where `found` is None if there is no such entity."""
    kind = KINDS[wanted.kind]
    if found is None:
        if not wanted.ours:
            return Change(wanted=wanted, action="missing")
        made = [Difference(name, None, value) for name, value in _in_order(kind, wanted.initial)]
        return Change(wanted=wanted, action="create", differences=made)
    differences = [
        Difference(name, found.get(name), value, fixed=_is_fixed(kind, name, found.get(name)))
        for name, value in _in_order(kind, wanted.said)
        if not _same(name, found, value)
    ]
    if any(one.fixed for one in differences):
        return Change(wanted=wanted, action="impossible", differences=differences)
    return Change(wanted=wanted, action="change" if differences else "same", differences=differences)


def _in_order(kind: Kind, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(one.name, values[one.name]) for one in kind.properties if values.get(one.name) is not None]


def _is_fixed(kind: Kind, name: str, before: Any) -> bool:
    if name == "duplicate_detection":
        return before is None  # its time can be changed, whether there is any cannot
    return any(one.name == name and one.fixed for one in kind.properties)


def _same(name: str, found: Mapping[str, Any], value: Any) -> bool:
    before = found.get(name)
    if name == "max_size" and found.get("partitioned") and before == value * _PARTITIONS:
        return True
    if name in ("forward_to", "forward_dead_letters_to"):
        return isinstance(before, str) and before.casefold() == value.casefold()  # names differ in more than case
    return bool(before == value)
