"""Free ports that stay free: a server that was killed must find its port again."""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_port"]

# Below the range that systems take the ports of outgoing connections from (32768 on Linux): a client that keeps
# connecting to a dead server would else sooner or later be given that server's port itself. Plus 10000 is valid too.
_FIRST, _LAST = 12_000, 32_000


def free_port() -> int:
    """A port of the loopback address that nobody listens on. Another process may take it before its use: then retry."""
    choice = random.SystemRandom()
    while True:
        port = choice.randint(_FIRST, _LAST)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
