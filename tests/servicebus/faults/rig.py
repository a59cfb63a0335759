"""A rig on a private emulator of Azure Service Bus."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from camora.interfaces.broker import Broker
from processes import workers

from tests.faults import rig as common
from tests.faults.rig import LEASE, TIMEOUT, begun, eventually, more, next_finish
from tests.servers.fixtures import fresh_url
from tests.servers.process import ServerFailed
from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.shared import url_of

__all__ = ["LEASE", "TIMEOUT", "Rig", "begun", "eventually", "more", "next_finish", "rigged"]

_prefixes = itertools.count(1)
_UNFINISHED = ("active", "scheduled", "deferred")


class Rig(common.Rig):
    """Everything of one test, under a prefix of its own. Results are kept beside it, in Redis.

    Its locks last as long as the leases of workers do.
    """

    server: ServiceBusServer

    def __init__(self, folder: Path, server: ServiceBusServer, *given: Any) -> None:
        super().__init__(folder, server, *given)
        self.prefix = f"rig-{next(_prefixes)}."
        self.results = fresh_url("redis")
        self.queues: list[str] = []
        self.queue("default")

    def queue(self, name: str, **options: Any) -> str:
        """One more queue; the name of its entity."""
        self.queues.append(name)
        return self.server.create_queue(f"{self.prefix}{name}", **{"lock_duration": LEASE, **options})

    @property
    def entity(self) -> str:
        """The entity of the queue that jobs go to."""
        return f"{self.prefix}default"

    def url(self, *, through: bool = False, user: str = "", **options: Any) -> str:
        """The URL of the server, or of the network in front of it."""
        assert not user, "there is one key, for everybody"
        port = self.proxy.port if through else self.server.port
        return url_of(self.server, port=port, **{"prefix": self.prefix, "timeout": TIMEOUT, **options})

    def left(self) -> int:
        """How many messages there are that are no dead letters; -1 while the server cannot tell."""
        try:
            counts = [self.server.counts(f"{self.prefix}{name}") for name in self.queues]
        except (OSError, ServerFailed):
            return -1
        return sum(count[state] for count in counts for state in _UNFINISHED)

    async def idle(self, broker: Broker) -> bool:
        """Whether no queue holds anything that is still to be done: the server itself counts what others hold."""
        return self.left() == 0


@functools.cache
def _sturdy() -> ServiceBusServer:
    """The server of all rigs of this process that ask for nothing special: each leaves it as it was."""
    return ServiceBusServer().start()


def _whole(server: ServiceBusServer) -> None:
    """Make it run again, whatever a test has done to it."""
    if not server.running():
        server.start()
    elif psutil.Process(server.pid).status() == psutil.STATUS_STOPPED:
        server.resume()
    server.clear()


@contextlib.contextmanager
def rigged(folder: Path, **options: Any) -> Iterator[Rig]:
    """A rig, on a server of its own if that has options."""
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        if options:
            server = stack.enter_context(ServiceBusServer(**options))
        else:
            server = _sturdy()
            stack.callback(_whole, server)
        rig = Rig(folder, server, stack.enter_context(workers()))
        with rig.proxy:
            yield rig
