"""PostgreSQL's codes of errors, in words that say what to do.

See https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re

from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError, EncodeError

from camora_sql.drivers.errors import VALUES, ServerError
from camora_sql.errors import Held

__all__ = ["DEADLOCK", "code_of", "explain", "explain_joined", "is_gone", "is_passing", "is_unclear"]

_READ_ONLY = "25006"
_HELD = "55P03"
_CONFLICT = "40001"
DEADLOCK = "40P01"
_PASSING = {
    _CONFLICT: "others changed the same rows all the time",
    DEADLOCK: "deadlocks with others, again and again; look for a program that locks Camora's tables",
    _HELD: "others held what was needed all the time; look for a program that keeps a transaction open",
    "57014": "the statement was cancelled",
    "0A000": "the tables are being changed",
}
"""The same step may work a moment later."""
_GONE = {
    _READ_ONLY: "it only reads: it is a standby, or was made read-only; name the primary "
    "(target_session_attrs=read-write in the URL finds it among several hosts)",
    "57P01": "an administrator has ended the connection",
    "57P02": "the server is recovering from a crash",
    "57P03": "the server is starting or stopping",
    "57P05": "the server ends connections that idle",
    "53300": "it has no connection left: raise max_connections of the server, or lower pool_size (?pool_size=2)",
}
"""This connection is of no more use."""
_CHANGED = "0A000"
_REFUSED = {_READ_ONLY, _CHANGED, "53300", "57P03", "57P05"}
"""Said before anything was done."""
_SET_UP = {
    "28P01": "the password is wrong, or none was given",
    "28000": "the server does not let this user in from here (pg_hba.conf)",
    "3D000": "there is no such database; create it: createdb {database}",
    "3F000": "there is no such schema; create it: CREATE SCHEMA {quoted}",
    "42501": "this user lacks a right: {text}",
    "42704": "{text}; the options in the URL are Camora's, or settings of the server",
    "42P01": "a table of Camora is missing ({text}); make them: {migrate}",
    "42883": "a function of Camora is missing ({text}); make them: {migrate}",
    "22023": "{text}",
}
_FULL = {"53100": "the disk of the server is full; free some space, and it goes on by itself"}


def code_of(error: Exception) -> str:
    """The five characters; empty where the server said nothing."""
    code = getattr(error, "code", None) or getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else ""


def is_passing(error: Exception) -> bool:
    """Whether the same step may work a moment later, perhaps on another connection."""
    connecting = isinstance(error, ServerError) and error.connecting
    return not connecting and (code_of(error) in _PASSING or is_gone(error))


def is_gone(error: Exception) -> bool:
    """Whether the connection is of no more use."""
    return isinstance(error, ServerError) and (error.broken or error.code in _GONE or error.code == _CHANGED)


def is_unclear(error: Exception) -> bool:
    """Whether the statement may have been done: its answer was lost with the connection."""
    return isinstance(error, ServerError) and is_gone(error) and error.sent and error.code not in _REFUSED


def explain(error: Exception, label: str, database: str, *, opening: bool, migrate: str) -> CamoraError:
    """The error as users shall see it; `migrate` is what to type to make the tables."""
    code, text = code_of(error), str(error)
    if code in _SET_UP:
        kind = ConfigurationError if opening else BrokerUnavailable
        return kind(
            f"{label}: {_SET_UP[code].format(database=database, text=text, quoted=_quoted(text), migrate=migrate)}"
        )
    if code == _HELD:
        return Held(f"{label}: {_PASSING[code]} ({text})")
    told = _PASSING.get(code) or _GONE.get(code) or _FULL.get(code)
    if told:
        return BrokerUnavailable(f"{label}: {told} ({text})")
    if isinstance(error, ServerError) and error.connecting:
        return BrokerUnavailable(f"{label} cannot be reached: {text}; is the server running, and the address right?")
    return BrokerUnavailable(f"{label}: {text}")


def _quoted(text: str) -> str:
    """What the server names in its message, in whatever language that is."""
    found = re.search(r'["«„](.+?)["»“]', text)
    return found[1].strip() if found else "…"


def explain_joined(error: Exception, label: str, database: str, *, migrate: str) -> CamoraError:
    """The error of a statement on somebody else's connection, in whose transaction the reason lies."""
    code = code_of(error)
    if code == _READ_ONLY:
        return ConfigurationError(f"{label}: that transaction may only read; begin one that may write")
    if code == "25P02":
        return BrokerUnavailable(f"{label}: that transaction has failed already; roll it back and begin again")
    if code in (_CONFLICT, DEADLOCK):
        return BrokerUnavailable(f"{label}: others were in the way of that transaction; roll it back and begin again")
    if code in VALUES:
        return EncodeError(f"{label}: a value of a message cannot be stored: {error}")
    return explain(error, label, database, opening=False, migrate=migrate)
