"""One emulator for all tests of a process, with a prefix of all names for each."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from tests.servers.servicebus import real
from tests.servers.servicebus.server import ServiceBusServer

__all__ = ["fresh_url", "shared", "url_of"]

_starting = threading.Lock()
_prefixes = itertools.count()
_run = os.urandom(3).hex()


def shared() -> ServiceBusServer:
    """The emulator that all tests of this process share: never stop it, and let nothing go wrong in it."""
    with _starting:
        return _shared()


@functools.cache
def _shared() -> ServiceBusServer:
    return ServiceBusServer().start()


def url_of(server: ServiceBusServer, *, port: int | None = None, **options: object) -> str:
    """The URL of this server, perhaps by way of a proxy's port, with options of `ServiceBusSettings`."""
    query = urlencode({"emulator": "true", **options})
    return f"servicebus://{server.key_name}:{quote(server.key, safe='')}@{server.host}:{port or server.port}/?{query}"


def fresh_url(queues: Sequence[str], *, lock_duration: float, **options: object) -> str:
    """A URL of these queues, empty, in the shared server: nobody else has their prefix.

    In a real namespace instead, where there is one: see `real`.
    """
    prefix = f"t{_run}-{next(_prefixes)}."
    if url := real.given():
        url += f"{'&' if '?' in url else '?'}{urlencode({**options, 'prefix': prefix})}"
        real.make(url, queues, lock_duration)
        return url
    for queue in queues:
        shared().create_queue(f"{prefix}{queue}", lock_duration=lock_duration)
    return url_of(shared(), prefix=prefix, **options)
