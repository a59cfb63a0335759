"""A server that the environment names, instead of a private one."""

from __future__ import annotations

from typing import Any

from tests.servers.resp import Connection

__all__ = ["GivenServer"]


class GivenServer:
    """Somebody's server. Its database must be empty: the tests empty it again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        if size := self.cli("DBSIZE"):
            raise AssertionError(f"the database at {url} holds {size} keys; give an empty one, the tests delete all")

    def cli(self, *args: object) -> Any:
        """One command over a connection of its own; the reply."""
        with Connection.to(self.url) as connection:
            return connection.call(*args)

    def empty(self) -> None:
        """Delete everything in its database."""
        self.cli("FLUSHDB")
