"""What shall go wrong, on a test's command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["KINDS", "Fault", "Faults"]

KINDS = {
    "ack_lost": "a message is stored, and its sender never hears of it",
    "send_lost": "a message is not stored, and its sender never hears of it",
    "send_rejected": "a message is refused with `condition`",
    "settle_answer_lost": "a settlement is applied, and nobody hears of it",
    "settle_lost": "a settlement is not applied, and nobody hears of it",
    "settle_refused": "a settlement is refused with `condition`",
    "management_silent": "requests of `operation` (or any) are neither carried out nor answered",
    "management_answer_lost": "requests of `operation` (or any) are carried out and not answered",
    "management_refused": "requests of `operation` (or any) are answered with `condition` and `status`",
    "throttled": "sends and requests are refused with com.microsoft:server-busy",
    "attach_refused": "links are refused with `condition`",
    "cbs_refused": "tokens are refused with `status`",
    "mute": "connections are taken, and nobody answers on them",
    "outage": "connections are refused, and those that are there are cut",
}


@attrs.define(kw_only=True)
class Fault:
    """One of `KINDS`, for an entity or for all, so many times or until a time, or until it is cleared."""

    kind: str = attrs.field(validator=attrs.validators.in_(KINDS))
    entity: str | None = None
    times: int | None = None
    seconds: float | None = None
    operation: str | None = None
    condition: str = "amqp:internal-error"
    description: str = "The emulator was told to fail here."
    status: int = 500
    how: str = attrs.field(default="cut", validator=attrs.validators.in_(("cut", "silent")))
    """How an answer is lost: with its connection, or alone."""
    after: int = 0
    """How many times all goes well before."""
    until: float | None = None


class Faults:
    """Those that are to come."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._armed: list[Fault] = []

    def arm(self, **fault: Any) -> Fault:
        """One more. Raises `ValueError` or `TypeError` for one that there is not."""
        new = Fault(**fault)
        if new.seconds is not None:
            new.until = self._clock() + new.seconds
        self._armed.append(new)
        return new

    def clear(self, kind: str | None = None) -> None:
        """Let nothing more go wrong, or nothing of this kind."""
        self._armed = [fault for fault in self._armed if kind is not None and fault.kind != kind]

    def left(self) -> list[Fault]:
        """Those that are still to come."""
        now = self._clock()
        self._armed = [fault for fault in self._armed if fault.until is None or fault.until > now]
        return list(self._armed)

    def take(self, kind: str, entity: str, operation: str | None = None) -> Fault | None:
        """The fault that comes now, None if all goes well."""
        if not self._armed:
            return None
        for fault in self.left():
            if fault.kind != kind or not _of(fault.entity, entity) or fault.operation not in (None, operation):
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._armed.remove(fault)
            return fault
        return None


def _of(wanted: str | None, entity: str) -> bool:
    return wanted is None or wanted.lower() == entity.lower()
