"""A rig on a private PostgreSQL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from processes import workers

from tests.faults import rig as common
from tests.faults.rig import LEASE, TIMEOUT, begun, eventually, next_finish
from tests.servers.postgres import PostgresServer, need

__all__ = ["LEASE", "TIMEOUT", "Rig", "begun", "eventually", "next_finish", "rigged"]


class Rig(common.Rig):
    """Everything of one test. `driver` is the one that is not the default, if any."""

    server: PostgresServer
    driver: str = ""

    def url(self, *, through: bool = False, user: str = "", **options: Any) -> str:
        """The URL of the server, or of the network in front of it."""
        bare = self.server.url_of(user=user or "camora", port=self.proxy.port if through else None)
        query = urlencode({"network_timeout": TIMEOUT, "connect_timeout": TIMEOUT, **options})
        return f"{bare.replace('postgresql', f'postgresql+{self.driver}') if self.driver else bare}?{query}"

    @staticmethod
    def python_path() -> str:
        """Where this process was told to look for modules; so are those that are told of more."""
        return os.environ.get("PYTHONPATH", "")

    def backends(self) -> int:
        """How many connections of others there are to the database."""
        [(count,)] = self.server.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(count)

    def terminate(self) -> int:
        """End all connections of others, as an administrator does; how many there were."""
        found = self.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return len(found)

    @contextlib.contextmanager
    def somebody(self) -> Iterator[psycopg.Connection[Any]]:
        """Another program's connection, in a transaction that is rolled back at the end."""
        with psycopg.connect(self.server.url) as connection:
            yield connection
            connection.rollback()


@contextlib.contextmanager
def rigged(folder: Path, *, version: int | None = None, settings: Sequence[str] = ()) -> Iterator[Rig]:
    """A rig on a server with these lines of configuration."""
    with PostgresServer(need(version), settings=settings) as server, workers() as start:
        rig = Rig(folder, server, start)
        with rig.proxy:
            yield rig
