"""Codes of errors of MySQL and MariaDB, in words that say what to do.

See https://mariadb.com/docs/server/reference/error-codes and https://dev.mysql.com/doc/mysql-errors/8.4/en/
"""

from __future__ import annotations

from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError, EncodeError

from camora_sql.drivers.errors import ServerError

__all__ = ["LOCKED", "NO_TABLE", "code_of", "explain", "explain_joined", "is_gone", "is_passing", "is_unclear"]

LOCKED = "1205"
NO_TABLE = "1146"
_LOCKS = "others held what was needed all the time; look for a program that keeps a transaction open"
_PASSING = {
    LOCKED: _LOCKS,
    "1213": "deadlocks with others, again and again; look for a program that locks Camora's tables",
    "1020": "others changed the same rows all the time",
    "1317": "the statement was interrupted",
    "1412": "the tables are being changed",
}
"""The same step may work a moment later."""
_READ_ONLY = "it only reads: it is a replica, or was made read-only; name the primary in the URL"
_NO_ROOM = "it has no connection left: raise max_connections of the server, or lower pool_size (?pool_size=2)"
_GONE = {
    "1290": _READ_ONLY,
    "1836": _READ_ONLY,
    "1040": _NO_ROOM,
    "1203": _NO_ROOM,
    "1226": "this user may have no more connections: raise its limit, or lower pool_size (?pool_size=2)",
    "1047": "the node is not ready: it has lost its cluster",
    "1053": "the server is stopping",
    "1927": "an administrator has ended the connection",
    "3169": "an administrator has ended the connection",
    "4031": "the server ends connections that idle",
}
"""This connection is of no more use."""
_REFUSED = {"1153", "4031"}
"""Of what ends a connection, what the server says before it has done anything."""
_SET_UP = {
    "1045": "the user name or the password is wrong ({text})",
    "1698": "this user logs in by the server's own socket only; make one with a password: CREATE USER …",
    "1044": "this user may not use that database; allow it: GRANT ALL ON `{database}`.* TO …",
    "1049": "there is no such database; create it: CREATE DATABASE `{database}`",
    "1046": "the URL names no database; write mysql://user:password@host/database",
    "1130": "the server does not let this user in from here ({text})",
    "1129": "the server refuses this host after many failures: FLUSH HOSTS ({text})",
    "1142": "this user lacks a right: {text}",
    "1143": "this user lacks a right: {text}",
    "1227": "this user lacks a right: {text}",
    "1251": "its way to log in is not known here: {text}",
    "2059": "its way to log in is not known here: {text}",
    NO_TABLE: "a table of Camora is missing ({text}); make them: {migrate}",
    "1050": "there is a table of that name, but no schema of Camora's ({text}); take another prefix (?prefix=jobs_), "
    "or drop what is left of an old one",
    "1273": "it is too old for Camora's tables ({text})",
    "1665": "its binlog_format is STATEMENT, which cannot note what Camora does; set it to MIXED or ROW",
}
_SLOW = (
    "it took longer than network_timeout over a statement; raise that (?network_timeout=60), or see what holds it up"
)
_OTHER = {
    "1969": _SLOW,
    "3024": _SLOW,
    "1021": "the disk of the server is full; free some space, and it goes on by itself",
    "1114": "the disk of the server is full, or its tablespace; free some space, and it goes on by itself ({text})",
    "3": "the server cannot write; free some space on its disk ({text})",
    "1153": "the server refuses what is larger than its max_allowed_packet; raise that, or keep large data elsewhere",
}
_VALUES = {"1264", "1300", "1366", "1406", "1690", "3854"}
"""What is wrong with a value: no text, or more than the column holds."""


def code_of(error: Exception) -> str:
    """The number, as text; empty where the server said nothing."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return code
    first = error.args[0] if error.args else None
    return str(first) if isinstance(first, int) else ""


def is_passing(error: Exception) -> bool:
    """Whether the same step may work a moment later, perhaps on another connection."""
    connecting = isinstance(error, ServerError) and error.connecting
    return not connecting and (code_of(error) in _PASSING or is_gone(error))


def is_gone(error: Exception) -> bool:
    """Whether the connection is of no more use."""
    return isinstance(error, ServerError) and (error.broken or error.code in _GONE)


def is_unclear(error: Exception) -> bool:
    """Whether a commit may have been done: its answer was lost with the connection."""
    return isinstance(error, ServerError) and error.broken and error.sent and error.code not in _REFUSED


def explain(error: Exception, label: str, database: str, *, opening: bool, migrate: str) -> CamoraError:
    """The error as users shall see it; `migrate` is what to type to make the tables."""
    code, text = code_of(error), _text_of(error)
    if code in _SET_UP:
        kind = ConfigurationError if opening else BrokerUnavailable
        return kind(f"{label}: {_SET_UP[code].format(database=database, text=text, migrate=migrate)}")
    told = _PASSING.get(code) or _GONE.get(code) or _OTHER.get(code)
    if told:
        return BrokerUnavailable(f"{label}: {told.format(text=text)} ({code}: {text})")
    if isinstance(error, ServerError) and error.connecting:
        return BrokerUnavailable(f"{label} cannot be reached: {text}; is the server running, and the address right?")
    return BrokerUnavailable(f"{label}: {text}")


def explain_joined(error: Exception, label: str, database: str, *, migrate: str) -> CamoraError:
    """The error of a statement on somebody else's connection, in whose transaction the reason lies."""
    code = code_of(error)
    if code == "1792":
        return ConfigurationError(f"{label}: that transaction may only read; begin one that may write")
    if code == "1213":
        return BrokerUnavailable(f"{label}: a deadlock has undone that transaction; begin it again")
    if code in _VALUES:
        return EncodeError(f"{label}: a value of a message cannot be stored: {_text_of(error)}")
    return explain(error, label, database, opening=False, migrate=migrate)


def _text_of(error: Exception) -> str:
    return str(error) if isinstance(error, ServerError) else str(error.args[-1] if error.args else error)
