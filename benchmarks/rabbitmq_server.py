"""RabbitMQ: one node, as it comes, so with fsync; a plugin more, by which a virtual host is deleted and made."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from benchmarks.servers import NoServer, Server, free_port, running

__all__ = ["RabbitServer", "rabbitmq_server"]

URL, MANAGEMENT = "CAMORA_BENCH_RABBITMQ_URL", "CAMORA_BENCH_RABBITMQ_MANAGEMENT_URL"
_PROGRAM = "rabbitmq-server"
_INSTALLED = Path("/usr/lib/rabbitmq/bin") / _PROGRAM
_PATIENCE = 60.0
"""Seconds, for a start and for what a virtual host with many messages in it takes to be deleted."""


class RabbitServer(Server):
    """One virtual host of a RabbitMQ server, which is deleted and made anew by the management plugin's HTTP API."""

    kind = "rabbitmq"

    def __init__(self, url: str, management: str) -> None:
        super().__init__(url)
        parts, api = urlsplit(url), urlsplit(management)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self._virtual_host = quote(unquote(parts.path.removeprefix("/")) or "/", safe="")
        self._user = unquote(api.username or "guest")
        login = f"{self._user}:{unquote(api.password or 'guest')}"
        self._login = b64encode(login.encode()).decode()
        self._api = f"{api.scheme}://{api.netloc.rpartition('@')[2]}/api"

    @property
    def name(self) -> str:
        """With its version."""
        return f"RabbitMQ {self._ask('GET', 'overview')['rabbitmq_version']}"

    def clear(self) -> None:
        """Delete the virtual host of the URL, whoever is connected, and make an empty one."""
        with contextlib.suppress(FileNotFoundError):
            self._ask("DELETE", f"vhosts/{self._virtual_host}")
        self._ask("PUT", f"vhosts/{self._virtual_host}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self._ask("PUT", f"permissions/{self._virtual_host}/{quote(self._user, safe='')}", everything)

    def check_empty(self) -> None:
        """Refuse a virtual host that holds somebody's queues, or cannot be reached."""
        try:
            queues = self._ask("GET", f"queues/{self._virtual_host}")
        except FileNotFoundError:
            return  # it is made
        except OSError as error:
            raise NoServer(
                f"the management plugin of the RabbitMQ in {URL} cannot be reached (its address may be given in "
                f"{MANAGEMENT}): {error}"
            ) from None
        if queues:
            raise NoServer(
                f"the RabbitMQ virtual host in {URL} holds {len(queues)} queues; give an empty one, it is deleted"
            )

    def answers(self) -> bool:
        """Whether it takes connections, and can be told to make a virtual host."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._ask("GET", "vhosts")
            with socket.create_connection(self._address, 1) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                return connection.recv(1) == b"\x01"  # a frame: a server that refuses begins with "A"
        return False

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        """Raises `FileNotFoundError` for what is not there, and another `OSError` for all else."""
        request = urllib.request.Request(
            f"{self._api}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Basic {self._login}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(path) from None
            raise


@contextlib.contextmanager
def rabbitmq_server() -> Iterator[RabbitServer]:
    """The server in the environment's URL, else a private one. Raises `NoServer`."""
    if url := os.environ.get(URL):
        server = RabbitServer(url, os.environ.get(MANAGEMENT) or _management(url))
        server.check_empty()
        server.clear()
        try:
            yield server
        finally:
            server.clear()
        return
    program = _program()
    with tempfile.TemporaryDirectory(prefix="camora-bench-rabbitmq-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        amqp, management, names = free_port(), free_port(), free_port()
        environment = _environment(folder, program, amqp, management, names)
        server = RabbitServer(f"amqp://guest:guest@127.0.0.1:{amqp}/bench", f"http://127.0.0.1:{management}")
        epmd = shutil.which("epmd", path=environment["PATH"])
        if not epmd:
            raise NoServer("no epmd, which comes with Erlang, on the PATH")
        command = [str(program), "-noinput", "+B", "i"]
        with (
            # Its own, which ends with it: a node without one starts one that stays.
            running([epmd], folder / "epmd.log", lambda: _listens(names), end=signal.SIGTERM, environment=environment),
            running(
                command,
                folder / "server.log",
                server.answers,
                end=signal.SIGKILL,  # what it would save is thrown away
                environment=environment,
                patience=_PATIENCE,
            ),
        ):
            server.clear()
            yield server


def _management(url: str) -> str:
    """Where its management plugin listens by default, for the same user."""
    parts = urlsplit(url)
    login, at, where = parts.netloc.rpartition("@")
    return f"http://{login}{at}{where.removesuffix(f':{parts.port}')}:15672"


def _program() -> Path:
    """The true script: what Debian has on the PATH wants to be run by its own user."""
    found = [Path(path).resolve() for path in [shutil.which(_PROGRAM)] if path]
    for path in [*found, _INSTALLED]:
        script = path.with_name(_PROGRAM)
        if script.exists():
            return script.resolve()
    raise NoServer(f"no RabbitMQ: set {URL}, or put {_PROGRAM} on the PATH")


def _environment(folder: Path, program: Path, amqp: int, management: int, names: int) -> dict[str, str]:
    """Everything that is its own: configuration, data, cookie, ports, and the names of its nodes."""
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{amqp}\n"
        f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
        # The plugin is here to make virtual hosts; nobody is to pay for what it counts.
        "management.rates_mode = none\nmanagement_agent.disable_metrics_collector = true\n"
    )
    (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    cookie = folder / ".erlang.cookie"
    cookie.write_text("benchmarks")
    cookie.chmod(0o400)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))}
    return inherited | {
        "PATH": f"{_erlang(folder, program)}{inherited['PATH']}",
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(names),
        "RABBITMQ_NODENAME": "bench@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the server then, and signals reach it
    }


def _erlang(folder: Path, program: Path) -> str:
    """What to put in front of the PATH: the Erlang beside a RabbitMQ that was unpacked, and not installed.

    Its own `erl` has the place built in where it would be installed.
    """
    root = next(
        (parent / "erlang" for parent in program.parents if parent.name == "lib" and parent.parent.name == "usr"), None
    )
    if root is None or root == Path("/usr/lib/erlang") or not root.exists():
        return ""
    binaries = next(root.glob("erts-*/bin"))
    script = folder / "bin" / "erl"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\nexport ROOTDIR={root} BINDIR={binaries} EMU=beam PROGNAME=erl\nexec "$BINDIR/erlexec" "$@"\n'
    )
    script.chmod(0o700)
    return f"{script.parent}{os.pathsep}{binaries}{os.pathsep}"


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
