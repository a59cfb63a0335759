"""One private Redis or Valkey server: started, killed, paused and started again by a test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from tests.servers.binaries import Binary
from tests.servers.process import ServerFailed, ServerProcess, wait_until
from tests.servers.resp import Connection, ReplyError
from tests.servers.tls import Certificates, new_certificates

__all__ = ["Options", "Server", "ServerFailed", "quoted", "wait_until"]


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


class Server(ServerProcess):
    """A Redis or Valkey of its own folder and port."""

    def __init__(self, binary: Binary, options: Options | None = None, **kwargs: Any) -> None:
        super().__init__()
        self.binary = binary
        self.options = attrs.evolve(options or Options(), **kwargs)
        self.certificates: Certificates | None = new_certificates(self.folder) if self.options.tls else None

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

    def prepare(self) -> None:
        """Write its configuration."""
        (self.folder / "server.conf").write_text("\n".join(self._config()) + "\n")

    def command(self) -> Sequence[str]:
        """The program and its configuration."""
        return [str(self.binary.path), str(self.folder / "server.conf"), *self._arguments()]

    def environment(self) -> dict[str, str]:
        """With the folder of its libraries."""
        return self.binary.environment()

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

    def answers(self) -> bool:
        """Whether it answers a PING, or refuses to."""
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


def quoted(value: str) -> str:
    """A value as a configuration file wants it when it may hold blanks."""
    return json.dumps(value)
