"""What the Redis server itself says it has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Reading", "RedisMeter"]


@dataclass(frozen=True)
class Reading:
    """Since the server started. `commands` are those executed: what scripts and functions call is among them."""

    cpu_us: float
    commands: int

    def __sub__(self, earlier: Reading) -> Reading:
        return Reading(self.cpu_us - earlier.cpu_us, self.commands - earlier.commands)


class RedisMeter:
    """Reads a server's own counts. A reading is two commands, which it leaves out of its count."""

    def __init__(self, url: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(url)
        self._own = 0

    def read(self) -> Reading:
        """Now. Blocks for two round trips."""
        cpu, stats = self._client.info("cpu"), self._client.info("stats")
        self._own += 2
        seconds = cpu["used_cpu_user"] + cpu["used_cpu_sys"]
        return Reading(seconds * 1e6, stats["total_commands_processed"] - self._own)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()
