"""SQLite's result codes, in words that say what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError

__all__ = ["BUSY", "DOUBTFUL", "check_log", "code_of", "explain", "explain_joined", "is_garbled", "moved"]

# Primary result codes: https://sqlite.org/rescode.html
_PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT = 3, 5, 6, 8, 10, 11
_BUSY_SNAPSHOT = _BUSY | 2 << 8
_FULL, _CANTOPEN, _PROTOCOL, _SCHEMA, _NOTADB = 13, 14, 15, 17, 26

BUSY = frozenset({_BUSY, _LOCKED, _PROTOCOL, _SCHEMA})
DOUBTFUL = frozenset({_IOERR, _CORRUPT, _NOTADB, _CANTOPEN, _READONLY})

_TRANSIENT = {
    _FULL: "the disk is full; free some space, and it goes on by itself",
    _IOERR: "the disk did not do what it was asked (full, over its quota, or failing); free some space or mend it",
    _BUSY: "other processes were writing all the time; raise busy_timeout (?busy_timeout=30), or look for a program "
    "that keeps a transaction on this file open (this one? then open the app before it begins)",
}
_SET_UP = {
    _PERM: "access is denied; give this user the right to read and write the file",
    _READONLY: "it cannot be written; make the file and its folder writable for this user (SQLite keeps a log beside "
    "the file)",
    _CANTOPEN: "it cannot be opened; make the file and its folder readable and writable for this user",
    _CORRUPT: "it is damaged; stop all workers and rescue what is left with: sqlite3 FILE .recover | sqlite3 NEWFILE",
    _NOTADB: "it is not an SQLite database; name another file, or move this one away",
}


def code_of(error: Exception) -> int:
    """The primary result code; 0 for errors of the driver's own."""
    code = getattr(error, "sqlite_errorcode", None)
    return (code or 0) & 0xFF


def is_garbled(error: Exception) -> bool:
    """Python's driver says so without a result code."""
    return isinstance(error, sqlite3.OperationalError) and not code_of(error) and "decode" in str(error).lower()


def explain(error: Exception, path: str, *, opening: bool) -> CamoraError:
    """The error as users shall see it."""
    code = code_of(error)
    if code in _SET_UP:
        kind = ConfigurationError if opening else BrokerUnavailable
        if not Path(path).parent.is_dir():
            return kind(f"{path}: its folder is gone; create it: mkdir -p {Path(path).parent}")
        return kind(f"{path}: {_SET_UP[code]} ({error})")
    if code in BUSY:
        # Without the driver's words: "database is locked" sounds as if somebody had to unlock it.
        return BrokerUnavailable(f"{path}: {_TRANSIENT[_BUSY]}")
    text = _TRANSIENT.get(code)
    return BrokerUnavailable(f"{path}: {text} ({error})" if text else f"{path}: {type(error).__name__}: {error}")


def explain_joined(error: Exception, path: str) -> CamoraError:
    """The error of a statement on somebody else's connection, in whose settings and transaction the reason lies."""
    code = code_of(error)
    if code == _READONLY:
        return ConfigurationError(
            f"{path}: that connection may only read (mode=ro, query_only, or the file's permissions); give one that "
            f"may write ({error})"
        )
    if getattr(error, "sqlite_errorcode", None) == _BUSY_SNAPSHOT:
        return BrokerUnavailable(
            f"{path}: others have written since this transaction began to read, so it cannot write any more; roll it "
            "back and begin again, with a write or BEGIN IMMEDIATE first"
        )
    if code in BUSY:
        return BrokerUnavailable(
            f"{path}: others were writing for as long as that connection waits; give it more time "
            "(connect_args={'timeout': 30}), or look for a program that keeps a transaction open"
        )
    return explain(error, path, opening=False)


def moved(path: str) -> sqlite3.OperationalError:
    """Another file, or none, has the name of the one that is open."""
    error = sqlite3.OperationalError(
        f"{path} was deleted, moved or replaced while it was in use; do that only while no worker runs"
    )
    error.sqlite_errorcode = _CANTOPEN
    return error


def check_log(path: str, mode: str) -> None:
    """Raises `ConfigurationError` where the file system cannot do what WAL mode needs."""
    if mode != "wal":
        raise ConfigurationError(
            f"{path}: SQLite cannot keep a write-ahead log there (its journal mode stays {mode!r}); "
            "use a local disk, not a network file system"
        )
