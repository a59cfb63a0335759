"""What a server answers instead of a result, and what it means."""

from __future__ import annotations

from camora.errors import BrokerUnavailable

__all__ = ["ConnectionLost", "ServerError", "unavailable"]


class ServerError(Exception):
    """An error reply. `code` is its first word, in capitals by convention: `NOSCRIPT`, `READONLY`, `OOM` …"""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class ConnectionLost(Exception):
    """The connection ended before the answer came: whether the server did what was asked cannot be known."""


_MEANING = {
    "LOADING": "it is loading its data into memory",
    "READONLY": "it is a replica now, and the new master is not known yet",
    "MASTERDOWN": "it is a replica whose master is gone",
    "CLUSTERDOWN": "the cluster does not cover all slots, or has not agreed yet on who serves them",
    "TRYAGAIN": "keys are moving to another node of the cluster",
    "MOVED": "keys have moved to another node of the cluster",
    "ASK": "keys are moving to another node of the cluster",
    "BUSY": "it is busy with somebody's script",
    "NOREPLICAS": "it has fewer replicas than its min-replicas-to-write asks for",
    "OOM": "it is full (maxmemory): give it more memory, or let workers drain the queues",
    "MISCONF": "it cannot write to its disk, and refuses changes until it can",
    "NOAUTH": "it asks for a password; put it into the URL: redis://:PASSWORD@HOST",
    "WRONGPASS": "user name or password are wrong",
    "NOPERM": "the user of the URL lacks a permission (see the ACL in the documentation)",
    "UNBLOCKED": "it ended the call",
}

_RECONNECT = frozenset({"READONLY", "MASTERDOWN", "MOVED", "NOAUTH", "UNKNOWN"})


def reconnects(error: ServerError) -> bool:
    """True where another connection may lead to the right server."""
    return error.code in _RECONNECT


def unavailable(who: str, error: Exception) -> BrokerUnavailable:
    """The same as users meet it: which server, what it said, what that means."""
    meaning = _MEANING.get(getattr(error, "code", ""))
    text = str(error) or type(error).__name__
    return BrokerUnavailable(f"{who}: {text}" + (f" ({meaning})" if meaning else ""))
