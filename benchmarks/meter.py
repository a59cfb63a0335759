"""What a server itself says, and its system says of it: CPU time, and how much it was asked to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Meter", "Reading", "meter_of"]


@dataclass(frozen=True)
class Reading:
    """Since the server started; what is not known is None."""

    cpu_us: float | None
    executed: int | None
    """On Redis: commands, those that scripts call among them. On PostgreSQL: transactions, ended either way."""

    def cpu_since(self, earlier: Reading) -> float | None:
        """CPU microseconds between two readings."""
        return None if self.cpu_us is None or earlier.cpu_us is None else self.cpu_us - earlier.cpu_us

    def executed_since(self, earlier: Reading) -> int | None:
        """What was executed between two readings."""
        return None if self.executed is None or earlier.executed is None else self.executed - earlier.executed


class Meter(ABC):
    """Reads a server's own counts."""

    prompt: ClassVar[bool]
    """What is executed is counted at once; else when the connection that it came by has ended."""

    @abstractmethod
    def read(self) -> Reading:
        """Now. Blocks for a round trip or two."""

    def rest(self) -> None:  # noqa: B027 -- not every server puts things off
        """Have the server write to the disk now what it would write some time. Blocks."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""


def meter_of(kind: str, url: str) -> Meter | None:
    """The one for this kind of server."""
    if kind == "redis":
        from benchmarks.redis_meter import RedisMeter

        return RedisMeter(url)
    if kind == "postgresql":
        from benchmarks.postgres_meter import PostgresMeter

        return PostgresMeter(url)
    if kind == "rabbitmq":
        from benchmarks.rabbitmq_meter import RabbitMeter

        return RabbitMeter(url)
    if kind == "servicebus":
        from benchmarks.servicebus_meter import ServiceBusMeter

        return ServiceBusMeter(url)
    return None
