"""What server it is, and whether it will do."""

from __future__ import annotations

from typing import Any

from camora.errors import ConfigurationError

from camora_redis.calling import answered
from camora_redis.link import Link

__all__ = ["check_server", "server_info"]

_OLDEST = (6, 2)


async def server_info(link: Link, key: str = "", *sections: str) -> dict[str, str]:
    """What the server of a key says of itself: INFO, by name. Raises `BrokerUnavailable`."""
    text: Any = await answered(link, link.call(key, "INFO", *sections))
    if isinstance(text, str):
        text = text.encode()
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


async def check_server(link: Link) -> None:
    """Raise `ConfigurationError` for a server that is too old, or `BrokerUnavailable` for one that is not there."""
    info = await server_info(link, "", "server")
    if info.get("valkey_version"):
        return
    version = info.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < _OLDEST:
        raise ConfigurationError(
            f"{link.who}: Redis {version} is too old; Redis {'.'.join(map(str, _OLDEST))} or later, or Valkey, is needed"
        )
