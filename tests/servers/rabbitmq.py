"""One private RabbitMQ: started, killed, paused and started again by a test."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from io import BufferedRWPair
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import psutil
import pytest
from pamqp import commands, frame, header

from tests.servers import debian
from tests.servers.ports import free_port
from tests.servers.process import ServerFailed, ServerProcess, wait_until
from tests.servers.tls import Certificates, new_certificates

__all__ = ["RabbitBinary", "RabbitServer", "find", "fresh_url", "fresh_vhost", "missing", "need", "shared"]

_PACKAGE = "rabbitmq-server"
_PROGRAM = "usr/lib/rabbitmq/bin/rabbitmq-server"
_ELSEWHERE = "/usr/sbin:/usr/local/sbin:/usr/lib/rabbitmq/bin:/opt/rabbitmq/sbin"
_GIVEN = "CAMORA_TEST_RABBITMQ_URL"
_FORGOTTEN = 180.0
"""Seconds: longer than a test may last."""
_JOBS = "(?!.*camora[.](?!dead))"
"""Names of queues of jobs and dead letters: others of Camora's own end by themselves."""

_starting = threading.Lock()
_next_prefix = itertools.count()
_next_vhost = itertools.count()
_run = os.urandom(4).hex()


@attrs.frozen
class RabbitBinary:
    """The folders of RabbitMQ and of its Erlang; `libraries` are where Erlang finds what the system lacks."""

    home: Path
    erlang: Path
    version: tuple[int, ...]
    libraries: Sequence[Path] = ()

    @property
    def programs(self) -> Path:
        """The folder of Erlang's machine and its tools."""
        return max(self.erlang.glob("erts-*/bin"))

    def applications(self, *names: str) -> Sequence[Path]:
        """The folders of these Erlang applications of its own, and of those that they need."""
        there = {path.stem: path for path in self.home.glob("plugins/*/ebin/*.app")}
        needed: dict[str, Path] = {}
        waiting = [*names]
        while waiting:
            name = waiting.pop()
            if name in there and name not in needed:
                needed[name] = there[name].parent.parent
                applications = re.search(r"\{applications,\s*\[([^]]*)\]", there[name].read_text(encoding="utf-8"))
                waiting += re.findall(r"\w+", applications[1]) if applications else []
        return list(needed.values())

    def environment(self) -> dict[str, str]:
        """What Erlang is run with: it need not be where it was built for."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        path = {"LD_LIBRARY_PATH": ":".join(map(str, self.libraries))} if self.libraries else {}
        named = {"ROOTDIR": str(self.erlang), "BINDIR": str(self.programs), "EMU": "beam", "PROGNAME": "erl"}
        return {**kept, **path, **named}


@functools.cache
def find() -> RabbitBinary | None:
    """From the PATH, or out of Debian's package."""
    server = shutil.which(_PACKAGE) or shutil.which(_PACKAGE, path=_ELSEWHERE)
    erl = shutil.which("erl")
    if server and erl and (found := _binary(Path(server).resolve(), Path(erl).resolve().parent.parent)):
        return found
    if unpacked := debian.unpacked(_PACKAGE, _PROGRAM):
        program, _ = unpacked
        root = program.parents[len(Path(_PROGRAM).parts) - 1]
        libraries = {path.parent for place in ("lib", "usr/lib") for path in root.glob(f"{place}/*/*.so*")}
        return _binary(program.resolve(), root / "usr" / "lib" / "erlang", sorted(libraries))
    return None


def missing() -> str:
    """Why there is none here; empty if there is one."""
    if os.environ.get(_GIVEN) or find():
        return ""
    return f"no RabbitMQ: not on the PATH, not in a Debian package ({_PACKAGE})"


def need() -> RabbitBinary:
    """The program; where there is none the test is skipped, and fails in CI."""
    if found := find():
        return found
    text = f"no RabbitMQ to start: not on the PATH, not in a Debian package ({_PACKAGE})"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def _binary(script: Path, erlang: Path, libraries: Sequence[Path] = ()) -> RabbitBinary | None:
    # On the PATH there may be a wrapper, for a user of the system that it changes to; the true one lies beside it.
    home = script.with_name(_PACKAGE).resolve().parent.parent
    application = next(home.glob("plugins/rabbit-*/ebin/rabbit.app"), None)
    version = re.search(r'\{vsn,\s*"(\d+)\.(\d+)\.(\d+)', application.read_text("utf-8")) if application else None
    if not version or not list(erlang.glob("erts-*/bin/erlexec")):
        return None
    found = RabbitBinary(home, erlang, tuple(map(int, version.groups())), libraries)
    try:
        command = [str(found.programs / "erlexec"), "+V"]
        subprocess.run(command, env=found.environment(), capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return found


class RabbitServer(ServerProcess):
    """A node of its own folder and ports: `guest:guest` may do all. Its data stay when it is killed.

    `settings` are lines of its `rabbitmq.conf`, `plugins` names of its own plugins. `tls` takes TLS alone on the port;
    "mutual" asks for the client's certificate too. It needs no `epmd`: all know the port on which nodes talk.
    """

    in_use = "eaddrinuse"
    advanced = "[]"
    """Settings of Erlang's applications, as Erlang writes them: what `rabbitmq.conf` has no words for."""

    def __init__(
        self,
        binary: RabbitBinary,
        *,
        settings: Sequence[str] = (),
        plugins: Sequence[str] = (),
        tls: bool | str = False,
    ) -> None:
        super().__init__()
        self.binary = binary
        self.settings = settings
        self.plugins = plugins
        self.tls = tls
        self.certificates: Certificates | None = new_certificates(self.folder) if tls else None
        self.applications = self.folder / "applications"
        self.cookie = os.urandom(12).hex()
        self.node_port = 0
        self.management_port = 0

    @property
    def version(self) -> tuple[int, ...]:
        return self.binary.version

    @property
    def name(self) -> str:
        """The node's name."""
        return f"rabbit@{self.host}"

    @property
    def url(self) -> str:
        """The URL of the first virtual host."""
        return self.url_of()

    def url_of(self, vhost: str = "/", *, user: str = "guest:guest", port: int | None = None, scheme: str = "") -> str:
        """The URL of a virtual host, for a user and its password, perhaps by way of a proxy's port."""
        query = {"cafile": self.certificates.authority} if self.certificates else {}
        if self.certificates and self.tls == "mutual":
            query |= {"certfile": self.certificates.certificate, "keyfile": self.certificates.key}
        scheme = scheme or ("amqps" if self.certificates else "amqp")
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"{scheme}://{user}@{self.host}:{port or self.port}/{path}" + (f"?{urlencode(query)}" if query else "")

    def prepare(self) -> None:
        """Write what it reads, and choose the other ports."""
        self.node_port = self.choose_node_port()
        if "rabbitmq_management" in self.plugins:
            self.management_port = free_port()
        self._link_applications()
        cookie = self.folder / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.write_text(self.cookie)
        cookie.chmod(0o400)
        (self.folder / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n")
        (self.folder / "advanced.config").write_text(f"{self.advanced}.\n")
        (self.folder / "rabbitmq.conf").write_text("\n".join(self.lines()) + "\n")

    def choose_node_port(self) -> int:
        """The port on which nodes and tools talk to it."""
        return free_port()

    def lines(self) -> Iterator[str]:
        """The lines of its `rabbitmq.conf`."""
        if self.certificates is None:
            yield f"listeners.tcp.1 = {self.host}:{self.port}"
        else:
            yield "listeners.tcp = none"
            yield f"listeners.ssl.1 = {self.host}:{self.port}"
            yield f"ssl_options.cacertfile = {self.certificates.authority}"
            yield f"ssl_options.certfile = {self.certificates.server_certificate}"
            yield f"ssl_options.keyfile = {self.certificates.server_key}"
            if self.tls == "mutual":
                yield "ssl_options.verify = verify_peer"
                yield "ssl_options.fail_if_no_peer_cert = true"
        if self.management_port:
            yield f"management.tcp.ip = {self.host}"
            yield f"management.tcp.port = {self.management_port}"
        yield "raft.wal_max_size_bytes = 33554432"  # so much of quorum queues' log is in memory as well
        yield from self.settings

    def command(self) -> Sequence[str]:
        """What the package's own script runs, with fewer threads."""
        return [
            *self._erlang("+S", "2:2", "+SDcpu", "1:1", "+sbwt", "none", "+W", "w"),
            "-name", self.name,
            "-kernel", "inet_dist_use_interface", f"{{{self.host.replace('.', ',')}}}",
            "-kernel", "prevent_overlapping_partitions", "false",
            "-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false",
            "-boot", "start_sasl",
            "-s", "rabbit", "boot",
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """With its folder for all that it reads and writes: nothing of the system's."""
        return {
            **self.binary.environment(),
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_DIST_PORT": str(self.node_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PLUGINS_DIR": str(self.applications),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self.folder / "conf.d" / "*.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
        }

    def wait_ready(self, timeout: float = 180) -> None:
        """Wait until it answers: some 4 s, and long on a busy machine."""
        super().wait_ready(timeout)

    def answers(self) -> bool:
        """Whether a connection opens."""
        try:
            with self._socket(timeout=2) as connection, connection.makefile("rwb") as stream:
                stream.write(header.ProtocolHeader().marshal())
                _hears(stream, commands.Connection.Start)
                _says(stream, commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
                tune = _hears(stream, commands.Connection.Tune)
                _says(stream, commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
                _says(stream, commands.Connection.Open("/"))
                _hears(stream, commands.Connection.OpenOk)
                _says(stream, commands.Connection.Close(200, "", 0, 0))
                _hears(stream, commands.Connection.CloseOk)
        except OSError:
            return False
        return True

    def eval(self, code: str, *, timeout: float = 60) -> str:
        """Erlang expressions inside the node, at once; the last one's value as Erlang writes it.

        Raises `ServerFailed` if they fail, and TimeoutExpired of `subprocess` if nothing is said for `timeout` seconds.
        """
        until = time.monotonic() + timeout
        program, address = self.binary.programs / "erl_call", f"{self.host}:{self.node_port}"
        while True:
            told = subprocess.run(
                [program, "-address", address, "-c", self.cookie, "-e"],
                input=f'lists:flatten(io_lib:format("~0p", [begin {code} end])).\n',
                env=self.environment(), capture_output=True, text=True, timeout=timeout,
            )  # fmt: skip
            # A busy node lets it wait for longer than it likes to; then nothing was asked yet.
            if "failed to connect" not in told.stderr or not self.running() or time.monotonic() > until:
                break
            time.sleep(0.2)
        value = re.fullmatch(r'\{ok, "(.*)"\}', told.stdout.strip(), re.DOTALL)
        if not value:
            raise ServerFailed(f"{code}: {told.stdout}{told.stderr}")
        return value[1]

    def add_vhost(self, name: str) -> str:
        """Make a virtual host in which `guest` may do all; its URL."""
        everything = ", ".join(['<<".*">>'] * 3)
        self.eval(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"camora">>),'
            f'ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, {everything}, <<"camora">>)'
        )
        return self.url_of(name)

    def forget_queues(self, names: str, vhost: str = "/", *, after: float = _FORGOTTEN) -> None:
        """Have it delete queues of such names, a pattern, that nobody has listened to or declared for `after` seconds.

        Each quorum queue costs a ten-thousandth of a processor, though nobody uses it. One that has a time of its own
        for this forgets that.
        """
        self.eval(
            f'ok = rabbit_policy:parse_set(<<"{vhost}">>, <<"forgotten">>, <<"{names}">>, '
            f'<<"{{\\"expires\\":{round(after * 1000)}}}">>, <<"0">>, <<"queues">>, <<"camora">>)'
        )

    def kill(self) -> None:
        """End all its processes at once; it finds all that it had confirmed again.

        RabbitMQ writes down late which queues, exchanges and bindings there are: after a kill some seconds later it may
        not know them, or (before 3.13.3) a quorum queue's messages. Tests mean other faults: it is made to write this
        before. `crash` does without.
        """
        if psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            with contextlib.suppress(ServerFailed, subprocess.TimeoutExpired):
                self.eval("catch mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()]", timeout=10)
        self.crash()

    def crash(self) -> None:
        """End all its processes at once, whatever it has still to write."""
        family = psutil.Process(self.pid).children(recursive=True)
        self.end(signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not any(_lives(process) for process in family), "the end of its processes", 10)

    def close(self) -> None:
        """End it for good, with all its data: many tests have servers of their own."""
        if self.running():
            self.crash()
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def _erlang(self, *flags: str) -> Sequence[str]:
        return [
            str(self.binary.programs / "erlexec"),
            *flags,
            "-noinput",
            *("-start_epmd", "false", "-erl_epmd_port", str(self.node_port)),
            *("-pa", *map(str, sorted(self.applications.glob("*/ebin")))),
        ]

    def _link_applications(self) -> None:
        # Erlang looks for each of a thousand modules in every folder there is: with fewer it starts in half the time.
        self.applications.mkdir(exist_ok=True)
        for folder in self.binary.applications("rabbit", *self.plugins):
            link = self.applications / folder.name
            if not link.exists():
                link.symlink_to(folder)

    def _socket(self, timeout: float) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), timeout)
        if self.certificates is None:
            return plain
        with contextlib.ExitStack() as undo:
            undo.callback(plain.close)
            secured = self.certificates.client_context().wrap_socket(plain, server_hostname=self.host)
            undo.pop_all()
        return secured


def _says(stream: BufferedRWPair, method: Any) -> None:
    stream.write(frame.marshal(method, 0))


def _hears(stream: BufferedRWPair, expected: type) -> Any:
    """The next method. Raises ConnectionError if there is none, or another than this."""
    stream.flush()
    start = stream.read(7)
    if len(start) < 7:
        raise ConnectionError("the connection was closed")
    _, _, size = struct.unpack(">BHI", start)
    _, _, method = frame.unmarshal(start + stream.read(size + 1))
    if not isinstance(method, expected):
        raise ConnectionError(f"{method!r} instead of {expected.__name__}")
    return method


def _lives(process: psutil.Process) -> bool:
    """Whether it does anything yet: who inherits the dead may take his time to bury them."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def shared() -> RabbitServer:
    """The RabbitMQ that all tests of this process share: never stop it, and change its settings for a while only.

    `rabbitmq_operator` does that; `rabbitmq_sturdy` has one that may be killed.
    """
    with _starting:
        return _shared()


@functools.cache
def _shared() -> RabbitServer:
    server = RabbitServer(need()).start()
    server.forget_queues(f"^t{_run}_{_JOBS}")
    return server


def fresh_url(*, scheme: str = "", forgotten: bool = True) -> str:
    """A URL of no queues yet: in the shared server, with a prefix of all names that nobody else has.

    What nobody uses for three minutes is deleted, unless it is not to be `forgotten`.
    """
    url = os.environ.get(_GIVEN) or shared().url
    first, _, rest = url.partition("://")
    joint = "&" if "?" in rest else "?"
    return f"{scheme or first}://{rest}{joint}prefix={'t' if forgotten else 'k'}{_run}_{next(_next_prefix)}."


def fresh_vhost() -> str:
    """The URL of an empty virtual host in the shared server, another one each time: some 50 ms."""
    name = f"t{_run}_{next(_next_vhost)}"
    url = shared().add_vhost(name)
    shared().forget_queues(f"^{_JOBS}", name)
    return url


@pytest.fixture
def private_rabbitmq() -> Iterator[Any]:
    """Makes private servers, which end with the test: `private_rabbitmq(settings=["consumer_timeout = 4000"])`."""
    servers: list[RabbitServer] = []

    def new(**options: Any) -> RabbitServer:
        servers.append(RabbitServer(need(), **options))
        return servers[-1].start()

    yield new
    for server in servers:
        server.close()
        print(f"the log of the server at {server.port}:\n{server.log[-3000:]}")  # shown if the test failed
