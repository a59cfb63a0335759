"""A rig on a private MariaDB."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pymysql
from processes import workers

from tests.faults import rig as common
from tests.faults.rig import TIMEOUT
from tests.servers.mariadb import MariadbServer, need

__all__ = ["Rig", "rigged"]


class Rig(common.Rig):
    """Everything of one test."""

    server: MariadbServer

    def url(self, *, through: bool = False, user: str = "", **options: Any) -> str:
        """The URL of the server, or of the network in front of it."""
        bare = self.server.url_of(user=user or "camora:secret", port=self.proxy.port if through else None)
        return f"{bare}?{urlencode({'network_timeout': TIMEOUT, 'connect_timeout': TIMEOUT, **options})}"

    def terminate(self, user: str = "camora") -> int:
        """End all connections of others, as an administrator does; how many there were."""
        found = self.server.sql(
            "SELECT id FROM information_schema.processlist WHERE user = %s AND id <> CONNECTION_ID()", user
        )
        for (number,) in found:
            with contextlib.suppress(pymysql.err.Error):  # it has gone by itself
                self.server.sql(f"KILL {number}")
        return len(found)

    @contextlib.contextmanager
    def somebody(self) -> Iterator[Any]:
        """Another program's connection, in a transaction that is rolled back at the end."""
        connection = pymysql.connect(
            host=self.server.host, port=self.server.port, user="camora", password="secret", database="camora",
            ssl_disabled=True,  # else the certificates of all the world are read each time
        )  # fmt: skip
        try:
            with connection.cursor() as cursor:
                yield cursor
            connection.rollback()
        finally:
            connection.close()


@contextlib.contextmanager
def rigged(folder: Path, *, settings: Sequence[str] = ()) -> Iterator[Rig]:
    """A rig on a server with these options."""
    with MariadbServer(need(), settings=settings) as server, workers() as start:
        rig = Rig(folder, server, start)
        with rig.proxy:
            yield rig
