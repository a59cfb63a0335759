"""The project beside this file, on a database of the test's own, and run as its users would run it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import psycopg

from tests import forked
from tests.servers.fixtures import shared_postgres

__all__ = ["Shop", "new_shop"]

FOLDER = Path(__file__).parent / "project"

_numbers = itertools.count()
_PRELUDE = "import os, json, django\ndjango.setup()\n"


@attrs.frozen
class Shop:
    """One database, described as in `settings.DATABASES`; `camora` is `settings.CAMORA`, None where it is not set.

    `queue` is a second database, of that alias.
    """

    database: dict[str, Any]
    camora: Any = None
    queue: dict[str, Any] | None = None

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CAMORA_", "DJANGO_"))}
        given = {"SHOP_CAMORA": self.camora, "SHOP_QUEUE": self.queue}
        said = {name: json.dumps(value) for name, value in given.items() if value is not None}
        return {
            **kept,
            **said,
            "DJANGO_SETTINGS_MODULE": "shopsite.settings",
            "SHOP_DATABASE": json.dumps(self.database),
            "PYTHONPATH": str(FOLDER),
        }

    @property
    def url(self) -> str:
        """As camora-sql has it."""
        if self.database["ENGINE"].endswith("sqlite3"):
            return f"sqlite:///{self.database['NAME']}"
        return "postgresql://{USER}@{HOST}:{PORT}/{NAME}".format(**self.database)

    def manage(self, *arguments: str, fails: bool | int = False, **variables: str) -> str:
        """Run manage.py; what it has printed, errors included. `fails` may be the very code it ends with."""
        return self._run([sys.executable, "-W", "error", "manage.py", *arguments], fails=fails, variables=variables)

    def camora_command(self, *arguments: str, fails: bool = False) -> str:
        """Run camora itself."""
        return self._run([sys.executable, "-m", "camora", *arguments], fails=fails, variables={})

    def python(self, code: str) -> Any:
        """Run this in the project; what it has put into `answer`, as JSON."""
        text = f"{_PRELUDE}answer = None\n{code}\nprint(json.dumps(answer))"
        return json.loads(
            self._run([sys.executable, "-W", "error", "-c", text], fails=False, variables={}).splitlines()[-1]
        )

    def calls(self, *commands: Sequence[str], then: str = "answer = out.getvalue()") -> Any:
        """Run several commands of manage.py in one process, then this code; what it has put into `answer`."""
        lines = "".join(f"    call_command(*{command!r})\n" for command in commands)
        return self.python(
            "import contextlib, io\nfrom django.core.management import call_command\n"
            f"with contextlib.redirect_stdout(io.StringIO()) as out:\n{lines}{then}"
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database answers to somebody who is no part of the project."""
        if self.database["ENGINE"].endswith("sqlite3"):
            with contextlib.closing(sqlite3.connect(self.database["NAME"], timeout=20)) as connection:
                return connection.execute(query).fetchall()
        with psycopg.connect(self.url, autocommit=True) as server:
            return server.execute(query.encode()).fetchall()

    @property
    def unshipped(self) -> int:
        """How many orders there still are to be shipped."""
        [[count]] = self.rows("SELECT count(*) FROM shop_order WHERE NOT shipped")
        return int(count)

    def _run(self, command: list[str], *, fails: bool | int, variables: dict[str, str]) -> str:
        done = forked.run(
            command, cwd=FOLDER, env={**self.environment, **variables}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False,
        )  # fmt: skip
        as_meant = (done.returncode != 0) == fails if isinstance(fails, bool) else done.returncode == fails
        assert as_meant, f"{command[1:]} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    @contextmanager
    def worker(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """A worker that is ended with the block, if it has not ended by then."""
        process = forked.Popen(
            [sys.executable, "-W", "error", "manage.py", "camora", "worker", *arguments],
            cwd=FOLDER, env={**self.environment, **variables}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            said, _ = process.communicate(timeout=30)
            print(said)  # shown if the test failed


def new_shop(kind: str, folder: Path, *, migrated: bool = True, camora: Any = None) -> Shop:
    """A project with a database of its own: `sqlite` or `postgresql`."""
    if kind == "sqlite":
        path = folder / f"shop{next(_numbers)}.sqlite3"
        if migrated:
            shutil.copy(_migrated_file(), path)
        return Shop(_sqlite(path), camora)
    name = f"shop_{os.getpid()}_{next(_numbers)}"
    shared_postgres().sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {_migrated_database()}" if migrated else ""))
    return Shop(_postgresql(name), camora)


def _sqlite(path: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 20}}


def _postgresql(name: str) -> dict[str, Any]:
    server = shared_postgres()
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": "camora",
        "HOST": server.host,
        "PORT": str(server.port),
    }


@functools.cache
def _migrated_file() -> Path:
    """Migrated once for each test process, and copied."""
    path = Path(tempfile.mkdtemp(prefix="camora-shop-")) / "migrated.sqlite3"
    Shop(_sqlite(path)).manage("migrate", "-v", "0")
    return path


@functools.cache
def _migrated_database() -> str:
    name = f"shop_{os.getpid()}_migrated"
    shared_postgres().sql(f"CREATE DATABASE {name}")
    Shop(_postgresql(name)).manage("migrate", "-v", "0")
    return name
