"""Faults that a test asks for: which, for whom, and how often still."""

from __future__ import annotations

from typing import Literal

import attrs

from camora.testing.names import task_name

__all__ = ["CrashPoint", "Faults"]

CrashPoint = Literal["received", "started", "finished", "settled"]
"""Where a worker dies: with the message in hand; when it is about to call the function; when the function has
returned, and nobody knows; when the end has been stored, and the worker has not heard it."""

Kind = Literal["received", "started", "finished", "settled", "twice", "lose_ack", "refuse", "doubt"]


@attrs.define
class _Fault:
    kind: Kind
    task: str | None
    left: int


class Faults:
    """A list of what is to go wrong, worked off from the front."""

    def __init__(self) -> None:
        self._planned: list[_Fault] = []

    def plan(self, kind: Kind, task: object, times: int) -> None:
        """Let this happen to the next `times` jobs (of this task, if one is named). Raises `ValueError`."""
        if times < 1:
            raise ValueError(f"times={times}: must be 1 or more")
        self._planned.append(_Fault(kind, None if task is None else task_name(task), times))

    def strikes(self, kind: Kind, task: str) -> bool:
        """True when it is to happen to this one; it is counted then."""
        if not self._planned:
            return False
        for fault in self._planned:
            if fault.kind == kind and fault.task in (None, task):
                fault.left -= 1
                if not fault.left:
                    self._planned.remove(fault)
                return True
        return False

    @property
    def pending(self) -> tuple[str, ...]:
        """What has not happened yet, in words."""
        return tuple(f"{fault.kind} of {fault.task or 'any task'}, {fault.left} times" for fault in self._planned)
