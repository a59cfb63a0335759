"""What a server answers instead of a result, and what it means."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from camora.errors import BrokerUnavailable

__all__ = [
    "LASTING",
    "ConnectionLost",
    "Halfway",
    "ServerError",
    "TooFewCopies",
    "Unusable",
    "code_of",
    "reconnects",
    "unavailable",
]


_INNER = re.compile(r"@user_script: ?\d+: -([A-Z]+) ")


class ServerError(Exception):
    """An error reply. `code` is its first word, in capitals by convention: `NOSCRIPT`, `READONLY`, `OOM`.

    Redis 6.2 hides it behind `ERR` where a script has met the error: then the script's line stands before it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        inner = _INNER.search(text)
        self.code = inner[1] if inner else text.partition(" ")[0]


class ConnectionLost(Exception):
    """The connection ended before the answer came: whether the server did what was asked cannot be known."""

    final = False
    """True where asking for the same again is of no use, or does harm."""


class TooFewCopies(ConnectionLost):
    """It was done, but not by as many replicas as were asked for: whether it outlives a failover cannot be known."""

    final = True


class Halfway(ConnectionLost):
    """Some of a batch is stored, and the rest is not."""

    def __init__(self, error: BaseException, *, final: bool = False) -> None:
        super().__init__(f"a part of the batch is stored, and the rest is not: {error}")
        self.final = final


class Unusable(BrokerUnavailable):
    """Waiting does not help: somebody must change the set-up. At start it is made a `ConfigurationError`.

    Later it is as good as any other `BrokerUnavailable`: what somebody has changed may be changed back. `code` says
    what it is, as `code_of`.
    """

    def __init__(self, text: str, *, code: str = "") -> None:
        super().__init__(text)
        self.code = code


_PASSING = {
    "LOADING": "it is loading its data into memory, and answers when that is done",
    "READONLY": "it is a replica, and takes no writes",
    "MASTERDOWN": "it is a replica whose master is gone",
    "CLUSTERDOWN": "the cluster does not cover all slots, or has not agreed yet on who serves them",
    "TRYAGAIN": "keys are moving to another node of the cluster",
    "MOVED": "keys have moved to another node of the cluster",
    "ASK": "keys are moving to another node of the cluster",
    "BUSY": "it is busy with somebody's script; SCRIPT KILL ends that",
    "NOREPLICAS": "it has fewer replicas than its min-replicas-to-write asks for",
    "OOM": "it is full: raise its maxmemory, or let workers drain the queues",
    "MISCONF": "it cannot write to its disk, and refuses changes until it can: look at its log and its disk",
    "UNBLOCKED": "it ended the call",
    "CLIENTS": "it has as many connections as it takes: raise its maxclients, or close some",
    "NOSOCKET": "there is no such socket: start the server, or correct the path",
    "REFUSED": "nothing listens there: start the server, or correct host and port",
    "NOHOST": "the name of the host is not known here: correct it in the URL",
    "SILENT": "no answer in time: is it busy, stopped, or behind a firewall?",
    "CLOSED": "the connection was closed",
}
LASTING = {
    "NOAUTH": "it asks for a password: in the URL it stands before the host, after a colon, and is followed by an @",
    "WRONGPASS": "user name or password are wrong, or the user is switched off",
    "NOPASSWORD": "it has no password, and one was given: take it out of the URL, or set it on the server",
    "NOPERM": "its ACL does not let this user do that; docs/redis.md has the line that does",
    "NODATABASE": "it has no database of this number: correct the URL, or raise `databases` in the server's settings",
    "NOREDIS": "what listens there is no Redis and no Valkey: correct host and port",
    "SENTINELAUTH": "the Sentinels ask for a password of their own, or refuse ours: set sentinel_password=PASSWORD",
    "NOSENTINEL": "it is no Sentinel; for a single server write redis:// instead of redis+sentinel://",
    "NOCLUSTER": "it is no node of a cluster; for a single server write redis:// instead of redis+cluster://",
    "TOOOLD": "it is too old: Redis 6.2 or later is needed, or Valkey",
    "DENIED": "this process may not use its socket: look at the permissions of the file",
    "WRONGTYPE": "a key that Camora keeps a queue in holds something else: rename that, or set ?prefix=NAME of its own",
    "UNTRUSTED": "its certificate is signed by nobody we trust: name the authority's by ssl_ca_certs=FILE",
    "OTHERHOST": "its certificate is for another host name: write that name, or set ssl_check_hostname=false",
    "NOCERTIFICATE": "it asks for our certificate: name it by ssl_certfile=FILE&ssl_keyfile=FILE",
    "TLS": "TLS fails",
}

_RECONNECT = frozenset({"READONLY", "MASTERDOWN", "MOVED", "NOAUTH", "UNKNOWN"})

_WORDS = tuple(
    (re.compile(words, re.IGNORECASE), code)
    for words, code in (
        ("no Sentinel answers: .*(HELLO must be called|authentication required|username-password)", "SENTINELAUTH"),
        ("HELLO must be called with the client already authenticated", "NOAUTH"),
        ("authentication required", "NOAUTH"),
        ("without any password configured", "NOPASSWORD"),
        ("can't (run this command|access at least one)", "NOPERM"),
        ("ACL failure in script", "NOPERM"),
        ("DB index is out of range", "NODATABASE"),
        ("unknown command ['`]SENTINEL", "NOSENTINEL"),
        ("unknown command ['`]HELLO", "TOOOLD"),
        ("cluster support disabled", "NOCLUSTER"),
        ("max number of clients", "CLIENTS"),
    )
)
"""What servers and the client library say without a code of its own."""
_TLS_WORDS = (
    ("Hostname mismatch", "OTHERHOST"),
    ("IP address mismatch", "OTHERHOST"),
    ("CERTIFICATE_VERIFY_FAILED", "UNTRUSTED"),
    ("CERTIFICATE_REQUIRED", "NOCERTIFICATE"),
    ("HANDSHAKE_FAILURE", "NOCERTIFICATE"),
)
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "REFUSED"),
    (socket.gaierror, "NOHOST"),
    (PermissionError, "DENIED"),
    (FileNotFoundError, "NOSOCKET"),
    (TimeoutError, "SILENT"),
    (ConnectionResetError, "CLOSED"),
)
_CLIENT_KINDS = {
    "AuthenticationError": "WRONGPASS",
    "NoPermissionError": "NOPERM",
    "BusyLoadingError": "LOADING",
    "InvalidResponse": "NOREDIS",
    "IncompleteReadError": "CLOSED",
}
"""Errors of the client library by name: it is not imported for this."""
_REPR = re.compile(r"<redis\..*?\)>\)>\)>")
_SCRIPT = re.compile(r" ?script: [0-9a-f]{40}, on @user_script:\d+\.?")
_LONGEST = 200


def reconnects(error: ServerError) -> bool:
    """True where another connection may lead to the right server."""
    return error.code in _RECONNECT


def code_of(error: BaseException) -> str:
    """What happened, in one word: a code of the server's, or one of ours; empty where it is not known."""
    found = ""
    for one in _chain(error):
        text = str(one)
        code = one.code if isinstance(one, (ServerError, Unusable)) else ""
        code = next((meant for words, meant in _WORDS if words.search(text)), "") or code
        if isinstance(one, ssl.SSLError):
            code = next((meant for words, meant in _TLS_WORDS if words in text), "TLS")
        code = code or _CLIENT_KINDS.get(type(one).__name__, "")
        code = code or next((meant for kind, meant in _KINDS if isinstance(one, kind)), "")
        if code in _PASSING or code in LASTING:
            return code
        found = found or code
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def unavailable(who: str, error: BaseException) -> BrokerUnavailable:
    """The same as users meet it: which server, what that means, and its own words."""
    code = code_of(error)
    words = _words(error)
    meaning = _PASSING.get(code) or LASTING.get(code)
    text = f"{who}: {meaning} ({words})" if meaning and words else f"{who}: {meaning or words}"
    return Unusable(text, code=code) if code in LASTING else BrokerUnavailable(text)


def _words(error: BaseException) -> str:
    """In one line, and without the representations of objects."""
    # Where in which script it happened is no use to anybody but us.
    text = _SCRIPT.sub("", _REPR.sub("", str(error) or type(error).__name__))
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
