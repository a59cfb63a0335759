"""What can be wrong with an SQLite file, found before it hurts. Reads only, over connections of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from camora.interfaces import CheckResult

from camora_sql.dialects.schema_found import schema_found
from camora_sql.dialects.sqlite_errors import explain
from camora_sql.schema import WORKS_WITH, Tables

__all__ = ["examinations", "file_system_of"]

_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "beegfs", "fuse.sshfs", "vboxsf", "davfs")
"""How the names of file systems begin whose locks, or whose shared memory, other machines do not see."""
_MOUNTS = Path("/proc/self/mounts")
_LEAST = 100 * 1000 * 1000
"""Bytes of disk below which something will soon fail to be written."""
_LARGE_LOG = 256 * 1024 * 1024
"""Bytes of log that are a sign of somebody who keeps it from being emptied."""


def examinations(path: str, tables: Tables, migrate: str) -> Mapping[str, Callable[[], CheckResult]]:
    """By name; each answers for these tables in the file at this path, which `migrate` brings up to date."""
    return {
        "place": partial(_place, Path(path)),
        "room": partial(_room, Path(path)),
        "log": partial(_log, Path(path)),
        "schema": partial(_schema, Path(path), tables, migrate),
        "integrity": partial(_integrity, Path(path)),
    }


def _place(path: Path) -> CheckResult:
    """On a local disk, and ours to write."""
    folder = path.parent
    if not folder.is_dir():
        return _failed(f"the folder {folder} does not exist", f"mkdir -p {folder}")
    for what in (folder, *(part for part in _files(path) if part.exists())):
        if not os.access(what, os.R_OK | os.W_OK):
            return _failed(f"{what} cannot be written", f"give this user the right to: chown {_user()} {what}")
    kind = file_system_of(path, _MOUNTS)
    if kind.startswith(_NETWORK):
        return _failed(
            f"{path} is on a network file system ({kind}): its locks do not hold, and data will be damaged",
            "move it to a disk of this machine, or use a broker that is a server",
        )
    return _fine(f"{path} is on a local disk" + (f" ({kind})" if kind else ", as far as can be told here"))


def _room(path: Path) -> CheckResult:
    """The disk is not full, and the log does not grow without end."""
    if not path.parent.is_dir():
        return _failed(f"the folder {path.parent} does not exist", f"mkdir -p {path.parent}")
    free = shutil.disk_usage(path.parent).free
    size, log = (part.stat().st_size if part.exists() else 0 for part in _files(path)[:2])
    text = f"{path} has {size / 1e6:.1f} MB, its log {log / 1e6:.1f} MB, and {free / 1e9:.1f} GB are free"
    if free < max(_LEAST, log):
        return _failed(text, "make room: dispatches will fail, and jobs wait, until there is some")
    if log > _LARGE_LOG:
        return CheckResult(
            ok=True, text=text, fix="look for a program that keeps a reading transaction open: it keeps the log growing"
        )
    return _fine(text)


def _log(path: Path) -> CheckResult:
    """It is kept in WAL mode."""
    with _reading(path) as (connection, trouble):
        if connection is None:
            return trouble
        [(mode,)] = connection.execute("PRAGMA journal_mode").fetchall()
    if mode != "wal":
        return _failed(f"{path} has journal mode {mode!r}", f"sqlite3 {path} 'PRAGMA journal_mode = WAL'")
    return _fine(f"{path} has a write-ahead log; SQLite {sqlite3.sqlite_version}")


def _schema(path: Path, tables: Tables, migrate: str) -> CheckResult:
    """Its tables are of the revision that this version works with."""
    with _reading(path) as (connection, trouble):
        if connection is None:
            return trouble
        query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
        if not connection.execute(query, (tables.version.name,)).fetchall()[0][0]:
            return schema_found(str(path), None, "", migrate)
        [(revision,)] = connection.execute(f'SELECT version_num FROM "{tables.version.name}"').fetchall()  # noqa: S608 -- a plain name
        fact = f'SELECT value FROM "{tables.facts.name}" WHERE name = ?'  # noqa: S608 -- a plain name
        facts = connection.execute(fact, WORKS_WITH[:1]).fetchall()
    return schema_found(str(path), revision, facts[0][0] if facts else "", migrate)


def _integrity(path: Path) -> CheckResult:
    """SQLite finds nothing wrong in it."""
    with _reading(path) as (connection, trouble):
        if connection is None:
            return trouble
        found = [row[0] for row in connection.execute("PRAGMA quick_check(3)").fetchall()]
    if found != ["ok"]:
        rescue = f"stop all workers, then: sqlite3 {path} .recover | sqlite3 rescued.db"
        return _failed(f"{path} is damaged: {'; '.join(found)}", rescue)
    return _fine(f"nothing wrong in {path}")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[tuple[sqlite3.Connection | None, CheckResult]]:
    """A connection that can only read; or what there is to say instead."""
    if not path.exists():
        yield None, _fine(f"{path} does not exist yet; the first use makes it")
        return
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        yield None, _failed(str(explain(error, str(path), opening=True)), "mend what this says")
    else:
        yield connection, _fine("")
    finally:
        if connection is not None:
            connection.close()


def file_system_of(path: Path, mounts: Path) -> str:
    """The kind of file system under this path; empty where the system does not tell."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    place = Path(os.path.realpath(path))
    best, kind = -1, ""
    for line in lines:
        fields = line.split(" ")
        # Blanks and such stand there as octal numbers.
        under = Path(fields[1].encode().decode("unicode_escape")) if len(fields) > 2 else None
        # Of those mounted at the same place, the last one counts.
        if under is not None and place.is_relative_to(under) and len(under.parts) >= best:
            best, kind = len(under.parts), fields[2]
    return kind


def _files(path: Path) -> tuple[Path, Path, Path]:
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _user() -> str:
    import getpass

    return getpass.getuser()


def _fine(text: str) -> CheckResult:
    return CheckResult(ok=True, text=text)


def _failed(text: str, fix: str) -> CheckResult:
    return CheckResult(ok=False, text=text, fix=fix)
