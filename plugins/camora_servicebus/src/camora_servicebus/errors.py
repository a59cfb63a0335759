"""What the service and its client say, and what it means: was anything stored, and what can be done about it."""

from __future__ import annotations

import enum
import os
import re
import socket
from typing import Any

import attrs

__all__ = ["Cause", "Judged", "judge"]


class Cause(enum.Enum):
    """Why something failed."""

    AWAY = enum.auto()
    """The namespace was not reached, or not in time."""
    BUSY = enum.auto()
    """The service throttles: it wants some seconds of rest."""
    FULL = enum.auto()
    """The entity has no room."""
    MISSING = enum.auto()
    """There is no such entity."""
    DISABLED = enum.auto()
    """The entity takes nothing at this moment: an operator has said so."""
    DENIED = enum.auto()
    """The credentials are not accepted, or give no right to this."""
    TOO_LARGE = enum.auto()
    """The message, or the batch, has more bytes than the entity takes."""
    LOST = enum.auto()
    """A lock, of a message or of a session, is not held any more."""
    REFUSED = enum.auto()
    """Some other no."""


@attrs.frozen
class Judged:
    """`sure`: the service itself said no, so that nothing was stored or changed. `text` is fit to be shown."""

    cause: Cause
    text: str
    sure: bool


_CAUSES = {
    "MessageSizeExceededError": Cause.TOO_LARGE,
    "ServiceBusQuotaExceededError": Cause.FULL,
    "ServiceBusServerBusyError": Cause.BUSY,
    "MessagingEntityNotFoundError": Cause.MISSING,
    "MessagingEntityDisabledError": Cause.DISABLED,
    "ServiceBusAuthenticationError": Cause.DENIED,
    "ServiceBusAuthorizationError": Cause.DENIED,
    "ClientAuthenticationError": Cause.DENIED,  # a credential's own
    "MessageLockLostError": Cause.LOST,
    "SessionLockLostError": Cause.LOST,
    "OperationTimeoutError": Cause.AWAY,
    "ServiceRequestError": Cause.AWAY,  # a credential's own
    "ServiceBusConnectionError": Cause.AWAY,
    "ServiceBusCommunicationError": Cause.AWAY,
}
"""Of the client's errors, by the names of their classes: this module is read where the client is not needed."""
_NOT_FOUND = 404
_SECRETS = re.compile(r"(?i)(sharedaccess(?:key|signature)\s*=|sig=|Bearer )[^;&\s\"']+")


def judge(error: BaseException) -> Judged:
    """What an error of the client's means, or one of the network's."""
    inner: Any = getattr(error, "inner_exception", None) or error.__cause__
    # Of what a credential or the network has raised the client only tells that it did.
    cause = _cause(error) or _cause(inner) or Cause.REFUSED
    if cause is Cause.DENIED and getattr(inner, "status_code", None) == _NOT_FOUND:
        # The service looks for the entity before it looks at the token.
        cause = Cause.MISSING
    return Judged(cause, _text(error), _answered_no(error) or _said_no(cause, inner))


def _cause(error: Any) -> Cause | None:
    found = next((_CAUSES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CAUSES), None)
    return found or (Cause.AWAY if isinstance(error, (OSError, TimeoutError)) else None)


def _answered_no(error: Any) -> bool:
    """Whether it is the answer to a request, with a status as HTTP has them: the caller's fault, or too much work."""
    status = getattr(error, "_status_code", None)
    return isinstance(status, int) and ((400 <= status < 500 and status not in _IN_DOUBT) or status == _BUSY)


_IN_DOUBT = (408,)
"""Of those, what says nothing of what was done: a time-out."""
_BUSY = 503


def _said_no(cause: Cause, inner: Any) -> bool:
    """Whether it was the answer to a message, and not the end of a link or a connection in whose midst it was."""
    kinds = {kind.__name__ for kind in type(inner).__mro__}
    if "AMQPConnectionError" in kinds or "AMQPSessionError" in kinds:
        return False
    if "AuthenticationException" in kinds or cause in (Cause.BUSY, Cause.FULL, Cause.DISABLED, Cause.TOO_LARGE):
        return True
    # A link that ends in between reports what was on its way as "unknown"; what else it reports, the service said.
    unknown = str(getattr(inner, "condition", b"")).endswith(("unknown-error", "UnknownError", "client-error"))
    if "MessageException" in kinds:
        return not unknown
    return cause not in (Cause.AWAY, Cause.REFUSED)


def _text(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "the service did not answer in time (its URL's timeout)"
    found = _line(error)
    inner = getattr(error, "inner_exception", None) or error.__cause__
    if inner is not None and found.startswith(_NOTHING):
        found = _line(inner)
    return _SECRETS.sub(r"\1***", _unreached(found) or found)[:500]


def _unreached(line: str) -> str | None:
    """Of a connection that did not come about the client says how far it came; here it is why."""
    found = _INITIATE.search(line)
    if found is None:
        return None
    number, why = found.groups()
    if number is not None and int(number) in _NAMELESS:
        why = "the name of the host is not known"
    elif number is not None and why.startswith("Connect call failed"):
        why = os.strerror(int(number))
    return f"no connection comes about: {why}"


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return " ".join(line.strip() for line in lines if line.strip()) or type(error).__name__


_INITIATE = re.compile(
    r"Failed to initiate the connection due to exception: (?:\[Errno (-?\d+)\] )?(.*?)\.?(?: Error condition: \S+)?$"
)
_NAMELESS = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_AGAIN", "EAI_NODATA", "EAI_FAIL") if hasattr(socket, name)
)
_NOTHING = "Service Bus has encountered an error."
"""What the client says where it has no words of its own."""
