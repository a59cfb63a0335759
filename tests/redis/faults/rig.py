"""A rig on a private Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from processes import workers

from tests.faults import rig as common
from tests.faults.rig import LEASE, TIMEOUT, begun, eventually
from tests.servers.binaries import need
from tests.servers.redis import Server

__all__ = ["LEASE", "TIMEOUT", "Rig", "begun", "eventually", "rigged"]


class Rig(common.Rig):
    """Everything of one test."""

    server: Server

    def url(self, *, through: bool = False, user: str = "", **options: Any) -> str:
        """The URL of the server, or of the network in front of it."""
        port = self.proxy.port if through else self.server.port
        query = urlencode({"timeout": TIMEOUT, **options})
        return f"redis://{f'{user}@' if user else ''}{self.server.host}:{port}/0?{query}"


@contextlib.contextmanager
def rigged(folder: Path, kind: str = "redis", **options: Any) -> Iterator[Rig]:
    """A rig on a server of this kind, which writes all it acknowledges to its disk unless `options` say otherwise.

    They are those of `tests.servers.redis.Options`.
    """
    chosen = {"appendonly": True, "appendfsync": "always", **options}
    with Server(need(kind), **chosen) as server, workers() as start:
        rig = Rig(folder, server, start)
        with rig.proxy:
            yield rig
