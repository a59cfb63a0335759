"""Redis and Valkey for Camora."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camora_redis.kinds import ListQueue, PubSubQueue

if TYPE_CHECKING:
    from camora_redis.broker import RedisBroker
    from camora_redis.settings import RedisSettings

__all__ = ["ListQueue", "PubSubQueue", "RedisBroker", "RedisSettings"]


def __getattr__(name: str) -> Any:
    # The client library is loaded by those who use it, not by whoever looks which plugins there are.
    if name == "RedisBroker":
        from camora_redis.broker import RedisBroker

        return RedisBroker
    if name == "RedisSettings":
        from camora_redis.settings import RedisSettings

        return RedisSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
