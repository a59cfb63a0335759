"""The project beside this file, on a database of the test's own, and run as its users would run it."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.servers.fixtures import shared_postgres

__all__ = ["Shop", "new_shop"]

FOLDER = Path(__file__).parent / "project"

_numbers = itertools.count()
_PRELUDE = "import os, json, django\ndjango.setup()\n"


@attrs.frozen
class Shop:
    """One database, described as in `settings.DATABASES`; `camora` is `settings.CAMORA`, None where it is not set."""

    database: dict[str, Any]
    camora: Any = None

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CAMORA_", "DJANGO_"))}
        said = {} if self.camora is None else {"SHOP_CAMORA": json.dumps(self.camora)}
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

    def manage(self, *arguments: str, fails: bool = False, **variables: str) -> str:
        """Run manage.py; what it has printed, errors included."""
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

    def _run(self, command: list[str], *, fails: bool, variables: dict[str, str]) -> str:
        done = subprocess.run(
            command, cwd=FOLDER, env={**self.environment, **variables}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, f"{command[1:]} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    @contextmanager
    def worker(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """A worker that is ended with the block, if it has not ended by then."""
        process = subprocess.Popen(
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
