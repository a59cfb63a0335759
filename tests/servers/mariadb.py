"""One private MariaDB: started, killed, paused and started again by a test."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pymysql
import pytest

from tests.servers import debian
from tests.servers.keeper import keeper
from tests.servers.process import ServerProcess

__all__ = ["MariadbBinary", "MariadbServer", "find", "fresh_url", "missing", "need", "shared"]

_NOBODY = 65534
_DEBIAN = ("mariadb-server-core", "usr/sbin/mariadbd")
# The tables that the server itself needs, in the order in which they are to be made.
_SYSTEM = (
    "mysql_system_tables.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "mysql_sys_schema.sql",
)
_GIVEN = "CAMORA_TEST_MARIADB_URL"

_starting = threading.Lock()
_next = itertools.count()
_run = os.urandom(4).hex()


@attrs.frozen
class MariadbBinary:
    """The server program; `share` has its messages and scripts, `libraries` what it needs, where that is not found."""

    path: Path
    version: tuple[int, ...]
    share: Path
    libraries: Path | None = None

    def environment(self) -> dict[str, str]:
        """What the program is run with."""
        return dict(os.environ) if self.libraries is None else {**os.environ, "LD_LIBRARY_PATH": str(self.libraries)}


@functools.cache
def find() -> MariadbBinary | None:
    """From the PATH, or out of Debian's package."""
    for name in ("mariadbd", "mysqld"):
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/libexec")
        if path and (found := _binary(Path(path).resolve())):
            return found
    if unpacked := debian.unpacked(*_DEBIAN):
        return _binary(*unpacked)
    return None


def missing() -> str:
    """Why there is none here; empty if there is one."""
    if os.environ.get(_GIVEN) or find():
        return ""
    return "no MariaDB: not on the PATH, not in a Debian package (mariadb-server-core)"


def need() -> MariadbBinary:
    """The program; where there is none the test is skipped, and fails in CI."""
    if found := find():
        return found
    text = "no MariaDB to start: not on the PATH, not in a Debian package (mariadb-server-core)"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def _binary(path: Path, libraries: Path | None = None) -> MariadbBinary | None:
    # The package's libraries have versions in their names; a system's own are found without help.
    found = MariadbBinary(path, (), _share(path), _folder_of_libraries(libraries))
    if not (found.share / _SYSTEM[0]).exists():
        return None
    try:
        said = subprocess.run(
            [path, "--no-defaults", "--version"],
            env=found.environment(), capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"(\d+)\.(\d+)\.(\d+)-MariaDB", said)
    return attrs.evolve(found, version=tuple(map(int, version.groups()))) if version else None


def _share(path: Path) -> Path:
    root = path.parent.parent
    return next((place for place in (root / "share" / "mysql", root / "share" / "mariadb") if place.exists()), root)


def _folder_of_libraries(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    found = next((place.parent for place in sorted(folder.glob("libaio.so*"))), None)
    return found or next((place.parent for place in sorted(folder.parent.glob("*/libaio.so*"))), folder)


def _as_nobody() -> dict[str, Any]:
    """It refuses to run as root."""
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _basics(binary: MariadbBinary, data: Path) -> list[str]:
    return [
        str(binary.path),
        "--no-defaults",
        f"--basedir={binary.path.parent.parent}",
        f"--lc-messages-dir={binary.share}",
        f"--character-sets-dir={binary.share / 'charsets'}",
        f"--datadir={data}",
        # A server that starts deletes the temporary tables that it finds, and so those of one that starts beside it.
        f"--tmpdir={data}",
        # Processes are killed here, not machines: what was handed to the system is safe.
        "--innodb-flush-log-at-trx-commit=2",
        "--sync-binlog=0",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=32M",
        "--aria-log-file-size=8M",
        "--plugin-maturity=unknown",
    ]


@functools.cache
def _template(binary: MariadbBinary) -> tuple[MariadbBinary, Path]:
    """An empty database with a user of all rights, made once: copies of it are made much faster."""
    home = Path(tempfile.mkdtemp(prefix="mariadb-", dir=keeper().folder))
    if os.geteuid() == 0:
        keeper().folder.chmod(0o711)
        os.chown(home, _NOBODY, _NOBODY)
        binary = _reachable(binary, home)
    data = home / "data"
    (data / "mysql").mkdir(parents=True)
    if os.geteuid() == 0:
        for folder in (data, data / "mysql"):
            os.chown(folder, _NOBODY, _NOBODY)
    scripts = [(binary.share / name).read_text(encoding="utf-8") for name in _SYSTEM if (binary.share / name).exists()]
    user = ("CREATE USER camora@'%' IDENTIFIED BY 'secret';", "GRANT ALL ON *.* TO camora@'%' WITH GRANT OPTION;")
    lines = ["CREATE DATABASE IF NOT EXISTS mysql;", "USE mysql;", *scripts, "FLUSH PRIVILEGES;", *user, ""]
    done = subprocess.run(
        [*_basics(binary, data), "--bootstrap", "--skip-networking", "--log-warnings=0"],
        input="\n".join(lines), env=binary.environment(), text=True, capture_output=True, timeout=120, cwd=home,
        **_as_nobody(),
    )  # fmt: skip
    assert not done.returncode, f"the bootstrap of MariaDB failed:\n{done.stderr[-3000:]}"
    return binary, data


def _reachable(binary: MariadbBinary, home: Path) -> MariadbBinary:
    """The same program where that user can read it: a copy, if it lies in somebody's private folder."""
    try:
        subprocess.run(
            [binary.path, "--no-defaults", "--version"],
            env=binary.environment(), check=True, capture_output=True, timeout=30, cwd=home, **_as_nobody(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        program = home / "usr" / "sbin" / binary.path.name
        program.parent.mkdir(parents=True)
        shutil.copy2(binary.path, program)
        shutil.copytree(binary.share, home / "usr" / "share" / binary.share.name)
        libraries = home / "libraries"
        libraries.mkdir()
        for library in binary.libraries.glob("*.so*") if binary.libraries else ():
            shutil.copy2(library, libraries)
        return attrs.evolve(binary, path=program, share=home / "usr" / "share" / binary.share.name, libraries=libraries)
    return binary


class MariadbServer(ServerProcess):
    """A server of its own folder and port. `settings` are options of its command line, without dashes.

    `files` are copied into its folder, which is `{data}` in the settings: it may not look anywhere else.
    """

    def __init__(
        self, binary: MariadbBinary, *, settings: Sequence[str] = (), files: Mapping[str, Path] | None = None
    ) -> None:
        super().__init__()
        self.binary, self._data_of = _template(binary)
        self.settings = settings
        self.files = dict(files or {})
        self.user = _as_nobody()
        self.data = self.folder / "data"

    @property
    def url(self) -> str:
        """The URL of the first database."""
        return self.url_of()

    def url_of(self, database: str = "camora", *, user: str = "camora:secret", port: int | None = None) -> str:
        """The URL of a database, for a user and its password, perhaps by way of a proxy's port."""
        return f"mariadb://{user}@{self.host}:{port or self.port}/{database}"

    def prepare(self) -> None:
        """Copy the empty database."""
        if os.geteuid() == 0:
            self.folder.chmod(0o711)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self._data_of), str(self.data)], check=True, timeout=60)
        for name, path in self.files.items():
            shutil.copyfile(path, self.data / name)
            (self.data / name).chmod(0o644)

    def command(self) -> Sequence[str]:
        """The program and what it is to do."""
        return [
            *_basics(self.binary, self.data),
            f"--port={self.port}",
            f"--bind-address={self.host}",
            "--skip-networking=0",
            "--skip-name-resolve",
            f"--socket={self.data / 'socket'}",
            f"--pid-file={self.data / 'pid'}",
            "--max-connections=300",
            "--max-allowed-packet=16M",
            *(f"--{setting.format(data=self.data)}" for setting in self.settings),
        ]

    def environment(self) -> dict[str, str]:
        """With the folder of its libraries."""
        return self.binary.environment()

    def answers(self) -> bool:
        """Whether it answers a query; the first time, its first database is made."""
        try:
            self.sql("CREATE DATABASE IF NOT EXISTS camora", database="")
        except pymysql.err.OperationalError as error:
            # A server that was made read-only is up, too.
            return error.args[0] in (1290, 1836)
        return True

    def sql(self, query: str, *values: Any, database: str = "camora") -> list[Any]:
        """One statement over a connection of its own; its rows, if it has any."""
        connection = pymysql.connect(
            host=self.host, port=self.port, user="camora", password="secret", database=database or None,
            autocommit=True, connect_timeout=5,
            ssl_disabled=True,  # else it reads the certificates of all the world, for 40 ms each time
        )  # fmt: skip
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, values or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()


def shared() -> MariadbServer:
    """The MariaDB that all tests of this process share: never stop it, and never change its settings."""
    with _starting:
        return _shared()


@functools.cache
def _shared() -> MariadbServer:
    return MariadbServer(need()).start()


def fresh_url(*, scheme: str = "") -> str:
    """A URL of no tables yet: in the shared server's database, under a prefix that nobody else has."""
    url = os.environ.get(_GIVEN) or shared().url
    first, _, rest = url.partition("://")
    joint = "&" if "?" in rest else "?"
    return f"{scheme or first}://{rest}{joint}prefix=t{_run}_{next(_next)}_"


@pytest.fixture
def private_mariadb() -> Iterator[Any]:
    """Makes private servers, which end with the test: `private_mariadb(settings=["read-only"])`."""
    servers: list[MariadbServer] = []

    def new(**options: Any) -> MariadbServer:
        servers.append(MariadbServer(need(), **options))
        return servers[-1].start()

    yield new
    for server in servers:
        server.close()
        print(f"the log of the server at {server.port}:\n{server.log[-3000:]}")  # shown if the test failed
