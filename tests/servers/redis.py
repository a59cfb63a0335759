"""One private Redis or Valkey server: started, killed, paused and started again by a test."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import attrs

from tests.servers.binaries import Binary
from tests.servers.keeper import keeper
from tests.servers.ports import free_port
from tests.servers.resp import Connection, ReplyError
from tests.servers.tls import Certificates, new_certificates

__all__ = ["Options", "Server", "ServerFailed", "quoted", "wait_until"]

_numbers = itertools.count(1)


class ServerFailed(AssertionError):
    """A server did not start, or ended by itself; the text has the end of its log."""


@attrs.frozen(kw_only=True)
class Options:
    """How a server is set up.

    `unix_socket` adds a socket to the port. `tls` takes TLS alone on the port; "mutual" asks for the client's
    certificate too. `users` are ACL rules, such as "ann on >secret ~camora:* +@all"; `password` is the default user's.
    `config` are more lines of the configuration file.
    """

    unix_socket: bool = False
    tls: bool | str = False
    password: str | None = None
    users: Sequence[str] = ()
    maxmemory: str | None = None
    maxmemory_policy: str | None = None
    appendonly: bool = False
    appendfsync: str | None = None
    databases: int = 16
    config: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The lines that say so in the server's configuration file."""
        named = {
            "requirepass": None if self.password is None else quoted(self.password),
            "maxmemory": self.maxmemory,
            "maxmemory-policy": self.maxmemory_policy,
            "appendfsync": self.appendfsync,
        }
        return [
            'save ""',
            f"databases {self.databases}",
            f"appendonly {'yes' if self.appendonly else 'no'}",
            *(f"{name} {value}" for name, value in named.items() if value is not None),
            *(f"user {rules}" for rules in self.users),
            *self.config,
        ]


class Server:
    """A server of its own folder and port, on the loopback address. As a context it is started and closed."""

    host = "127.0.0.1"

    def __init__(self, binary: Binary, options: Options | None = None, **kwargs: Any) -> None:
        self.binary = binary
        self.options = attrs.evolve(options or Options(), **kwargs)
        self.folder = keeper().folder / str(next(_numbers))
        self.folder.mkdir()
        self.port = 0
        self.certificates: Certificates | None = new_certificates(self.folder) if self.options.tls else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of database 0, by the port."""
        return self.url_of()

    def url_of(self, database: int = 0, *, user: str = "", password: str | None = None) -> str:
        """The URL of a database, for a user or for the default one."""
        password = self.options.password if password is None else password
        login = f"{quote(user)}:{quote(password, safe='')}@" if password else ""
        query = {"ssl_ca_certs": self.certificates.authority} if self.certificates else {}
        if self.certificates and self.options.tls == "mutual":
            query |= {"ssl_certfile": self.certificates.certificate, "ssl_keyfile": self.certificates.key}
        scheme = "rediss" if self.certificates else "redis"
        return f"{scheme}://{login}{self.host}:{self.port}/{database}" + (f"?{urlencode(query)}" if query else "")

    @property
    def socket(self) -> Path:
        """The path of its socket, where it has one."""
        return self.folder / "socket"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def running(self) -> bool:
        """Whether its process lives, be it paused."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, again on the same port and folder if it ran before, and wait until it answers."""
        for _ in range(10 if not self.port else 1):
            fresh = not self.port
            self.launch()
            try:
                self.wait_ready()
            except ServerFailed:
                if not (fresh and "Address already in use" in self.log):
                    raise
                self.port = 0  # somebody was faster; another one then
            else:
                return self
        raise ServerFailed("no free port was found")

    def launch(self) -> None:
        """Start its process, and do not wait."""
        assert not self.running(), "the server is running"
        if not self.port:
            self.port = free_port()
            (self.folder / "server.conf").write_text("\n".join(self._config()) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binary.path), str(self.folder / "server.conf"), *self._arguments()],
                cwd=self.folder,
                env=self.binary.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is not for it
            )
        keeper().add(self._process.pid)

    def wait_ready(self, timeout: float = 20) -> None:
        """Wait until it answers a PING. Raises `ServerFailed` when it has ended, or does not answer in time."""
        wait_until(self._answers, "an answer to PING", timeout, self)

    def stop(self) -> None:
        """End it in order: it saves what it is set up to save."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once: it saves nothing more."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop its process: connections stay, and nothing answers."""
        assert self._process is not None and self.running(), "the server is not running"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None and self.running(), "the server is not running"
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        if self.running():
            self.kill()

    def connection(self, *, user: str | None = None, password: str | None = None, timeout: float = 10) -> Connection:
        """A connection of the test's own, as the default user if none is named."""
        password = self.options.password if password is None else password
        tls = self.certificates.client_context() if self.certificates else None
        return Connection((self.host, self.port), user=user, password=password, tls=tls, timeout=timeout)

    def cli(self, *args: object) -> Any:
        """One command over a connection of its own; the reply. Raises `ReplyError`, or `OSError` if it is not there."""
        with self.connection() as connection:
            return connection.call(*args)

    def info(self, section: str = "default") -> dict[str, str]:
        """What INFO says."""
        lines = (line.partition(":") for line in self.cli("INFO", section).splitlines() if ":" in line)
        return {name: value for name, _, value in lines}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if error is not None and self.log:
            error.add_note(f"the end of the log of the server at {self.port}:\n{self.log[-3000:]}")

    def _answers(self) -> bool:
        try:
            with self.connection(timeout=1) as connection:
                connection.call("PING")
        except ReplyError as error:
            return not str(error).startswith("LOADING")  # a refusal is an answer: the default user may be off
        except OSError:
            return False
        return True

    def _arguments(self) -> list[str]:
        return []

    def _config(self) -> Iterator[str]:
        yield f"bind {self.host}"
        yield f"dir {self.folder}"
        if self.options.unix_socket:
            yield f"unixsocket {self.socket}"
        if self.certificates is None:
            yield f"port {self.port}"
        else:
            yield "port 0"
            yield f"tls-port {self.port}"
            yield f"tls-ca-cert-file {self.certificates.authority}"
            yield f"tls-cert-file {self.certificates.server_certificate}"
            yield f"tls-key-file {self.certificates.server_key}"
            yield f"tls-auth-clients {'yes' if self.options.tls == 'mutual' else 'no'}"
        yield from self.options.lines()

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None and self.running(), "the server is not running"
        self._process.send_signal(number)
        if number == signal.SIGTERM:
            self._process.send_signal(signal.SIGCONT)  # paused, it would not hear the other
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the server at {self.port} does not end; its log:\n{self.log[-3000:]}") from None
        keeper().drop(self._process.pid)


def quoted(value: str) -> str:
    """A value as a configuration file wants it when it may hold blanks."""
    return json.dumps(value)


def wait_until(condition: Callable[[], bool], what: str, timeout: float, *servers: Server) -> None:
    """Look until it is so: a server tells nobody. Raises `ServerFailed` with the logs if it is not so in time."""
    began = time.monotonic()
    while not condition():
        dead = [server for server in servers if not server.running()]
        waited = time.monotonic() - began
        if dead or waited > timeout:
            why = "the server ended" if dead else f"not within {timeout} s"
            logs = "\n".join(f"--- log of the server at {server.port}\n{server.log[-3000:]}" for server in servers)
            raise ServerFailed(f"{what}: {why}\n{logs}")
        time.sleep(min(0.002 + waited / 10, 0.05))  # quick at first; looking costs the servers time
