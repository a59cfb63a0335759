"""What the Redis server itself says it has done."""

from __future__ import annotations

from typing import Any

from benchmarks.meter import Meter, Reading

__all__ = ["RedisMeter"]


class RedisMeter(Meter):
    """Counts the commands that were executed: what scripts and functions call is among them, its own two are not."""

    prompt = True

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
