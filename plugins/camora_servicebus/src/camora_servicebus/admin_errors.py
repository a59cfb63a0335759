"""How the management interface refuses, in words that say what to do."""

from __future__ import annotations

import re

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from camora.errors import BrokerUnavailable, ConfigurationError

__all__ = ["Conflict", "NotAllowed", "Refused", "in_words"]

_TAIL = re.compile(r"\s*(To know more visit|TrackingId:|CorrelationId:).*", re.DOTALL)
"""What helps the service's operators alone."""
_NUMBER = re.compile(r"\s*\bSubCode=\d+[.:]?\s*")
_NUMBERED = re.compile(r"\[Errno -?\d+\] ([^')(]+)")
_UNKNOWN = re.compile(r"Failed to resolve|Name or service not known|getaddrinfo")
_UNTRUSTED = re.compile(r"certificate verify failed: ([^(\n]*[^(\n ])")
_SLOW = re.compile(r"time.?out", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*>")
_CLAIM = re.compile(r"claim|not authorized|authorization to perform", re.IGNORECASE)
_OPEN = "Open the way there, or say where it is: management=HOST:PORT"
_UNAUTHORIZED, _FORBIDDEN, _CONFLICT, _MANY, _DEFECT = 401, 403, 409, 429, 500


class NotAllowed(ConfigurationError):
    """Who we are is not let in, or has no right to manage."""


class Refused(ConfigurationError):
    """The service says that it cannot be so."""


class Conflict(Exception):
    """It exists by now, or somebody changes it at this moment: look again."""


def in_words(error: AzureError, label: str, doing: str, management: str) -> Exception:
    """What to raise for an error of the client: `doing` says what was tried, `management` the host and port asked."""
    where = f"{label}: cannot {doing}"
    if isinstance(error, (ServiceRequestError, ClientAuthenticationError, HttpResponseError)):
        status = getattr(error, "status_code", None)
        text = _plain(error)
        if status == _CONFLICT or isinstance(error, ResourceExistsError):
            return Conflict(text)
        if status in (_UNAUTHORIZED, _FORBIDDEN) or isinstance(error, ClientAuthenticationError):
            return _not_let_in(where, text)
        if status is not None and status != _MANY and status < _DEFECT:
            return Refused(f"{where}: the service refuses: {text}")
        if status is not None:
            return BrokerUnavailable(f"{where}: the service cannot at this moment ({status}): {text}")
    if (untrusted := _UNTRUSTED.search(str(error))) is not None:
        return Refused(
            f"{where}: the certificate of the management interface is not trusted: {untrusted[1]}. Correct the host, "
            "or add cafile=… with the authority that has signed it"
        )
    return BrokerUnavailable(f"{where}: {_unanswered(error, management)}")


def _unanswered(error: AzureError, management: str) -> str:
    """Why there is no answer, out of what the libraries below say of it."""
    text = _first_line(error)
    if isinstance(error, (ServiceRequestTimeoutError, ServiceResponseTimeoutError)) or _SLOW.search(text):
        return f"no answer in time from the management interface at {management}. {_OPEN}"
    if isinstance(error, ServiceResponseError):
        return "the connection broke before the answer came, and it may be done: say it again"
    if _UNKNOWN.search(text):
        return (
            f"the management interface is looked for at {management}, and the name of this host is not known. Correct "
            "it, or say where it is: management=HOST:PORT"
        )
    if (found := _NUMBERED.search(text)) is not None:
        text = found[1]
    return f"no connection to the management interface at {management} comes about: {text.rstrip('.')}. {_OPEN}"


def _not_let_in(where: str, text: str) -> NotAllowed:
    if _CLAIM.search(text):
        return NotAllowed(
            f"{where}: these credentials have no right to manage: {text}. Use a key with Manage, or give the identity "
            "the role 'Azure Service Bus Data Owner'"
        )
    return NotAllowed(
        f"{where}: the credentials are not accepted: {text}. Correct the name of the key and the key, or the identity"
    )


def _plain(error: AzureError) -> str:
    """The service's own words, without what only its operators read."""
    text = str(getattr(error, "message", "") or error)
    response = getattr(error, "response", None)
    detail = re.search(r"<Detail>(.*?)</Detail>", text, re.DOTALL)
    if detail is None and response is not None:
        try:
            detail = re.search(r"<Detail>(.*?)</Detail>", response.text(), re.DOTALL)
        except (UnicodeDecodeError, AttributeError):
            detail = None
    if detail is not None:
        text = detail[1]
    return _first_line(_NUMBER.sub(" ", _TAIL.sub("", _TAG.sub(" ", text)))).strip(". ") or type(error).__name__


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
