"""A master, two replicas and three Sentinels that watch them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tests.servers.binaries import Binary
from tests.servers.redis import Server, quoted, wait_until
from tests.servers.resp import ReplyError

__all__ = ["Sentinels"]

_DOWN_AFTER = 1500  # ms
_FAILOVER_TIMEOUT = 3000  # ms; a second failover may follow the first that soon
_IN_TIME = 30.0  # s


class SentinelServer(Server):
    """A Sentinel process. It has no password of its own."""

    def __init__(self, binary: Binary, lines: list[str]) -> None:
        super().__init__(binary)
        self._lines = lines

    def told(self, service: str) -> dict[str, str]:
        """What it says of the master of a service."""
        said = self.cli("SENTINEL", "MASTER", service)
        return dict(zip(said[::2], said[1::2], strict=True))

    def _arguments(self) -> list[str]:
        return ["--sentinel"]

    def _config(self) -> Iterator[str]:
        yield f"bind {self.host}"
        yield f"port {self.port}"
        yield f"dir {self.folder}"
        yield from self._lines


class Sentinels:
    """Three data servers and three Sentinels with a quorum of two. As a context they are started and closed.

    `options` are those of `tests.servers.redis.Options`, for each data server.
    """

    def __init__(self, binary: Binary, service: str = "camora", **options: Any) -> None:
        self.service = service
        self.nodes: list[Server] = []
        self.sentinels: list[SentinelServer] = []
        self._binary = binary
        self._options = options
        self._password: str | None = options.get("password")

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return self.url_of()

    def url_of(self, database: int = 0) -> str:
        """The URL of a database: it names the Sentinels."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        hosts = ",".join(f"{sentinel.host}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{login}{hosts}/{self.service}/{database}"

    @property
    def master(self) -> Server:
        """The data server that the Sentinels name as the master."""
        port = int(self._sentinel().told(self.service)["port"])
        return next(node for node in self.nodes if node.port == port)

    @property
    def replicas(self) -> list[Server]:
        """The running data servers other than the master."""
        master = self.master
        return [node for node in self.nodes if node is not master and node.running()]

    def start(self) -> Self:
        """Start all and wait until the replicas are in sync and all know each other: some 2 s."""
        master = self._new_node()
        for _ in range(2):
            self._new_node(f"replicaof {master.host} {master.port}")
        self._wait(lambda: self._in_sync(master), "replicas in sync")
        lines = [
            f"sentinel monitor {self.service} {master.host} {master.port} 2",
            f"sentinel down-after-milliseconds {self.service} {_DOWN_AFTER}",
            f"sentinel failover-timeout {self.service} {_FAILOVER_TIMEOUT}",
        ]
        if self._password:
            lines.append(f"sentinel auth-pass {self.service} {quoted(self._password)}")
        for _ in range(3):
            self.sentinels.append(SentinelServer(self._binary, lines))
            self.sentinels[-1].start()
        self._wait(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels), "Sentinels that know all")
        return self

    def kill_master(self) -> Server:
        """Kill the master and do not wait: the Sentinels notice after 1.5 s. The killed one, which may be restarted."""
        master = self.master
        master.kill()
        return master

    def wait_failed_over(self, old: Server) -> Server:
        """Wait until every Sentinel names another master than `old`, and that one takes writes. The new master."""
        self._wait(lambda: self._agreed(other_than=old), "another master")
        return self.master

    def failover(self) -> Server:
        """Have the Sentinels make a replica the master while the old one lives, and wait for it. The new master.

        The old one takes writes until a Sentinel turns it into a replica, which may be ten seconds later; what it took
        is lost then, as in any such failover.
        """
        old = self.master
        self._wait(self._failover_begun, "the beginning of a failover")
        return self.wait_failed_over(old)

    def wait_settled(self) -> None:
        """Make every running data server but the master a replica of it, and wait until they are in sync.

        A Sentinel would do the same to an old master that is back, but takes ten seconds over it.
        """
        self._wait(self._agreed, "one master")
        master = self.master
        for node in self._others(master):
            if node.info("replication")["role"] == "master":
                node.cli("REPLICAOF", master.host, master.port)
        self._wait(lambda: self._agreed() and self._in_sync(master), "replicas in sync with the new master")

    def empty(self) -> None:
        """Delete everything."""
        self.master.cli("FLUSHALL")

    def close(self) -> None:
        """End all."""
        for server in (*self.sentinels, *self.nodes):
            server.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            for sentinel in self.sentinels:
                error.add_note(f"the end of the log of the Sentinel at {sentinel.port}:\n{sentinel.log[-2000:]}")
        self.close()

    def _new_node(self, *lines: str) -> Server:
        # With the default delay a replica may still be empty when it becomes the master.
        config = ["repl-diskless-sync-delay 0", *lines, *self._options.get("config", ())]
        if self._password:
            config.append(f"masterauth {quoted(self._password)}")
        self.nodes.append(Server(self._binary, **{**self._options, "config": config}))
        return self.nodes[-1].start()

    def _sentinel(self) -> SentinelServer:
        return next(sentinel for sentinel in self.sentinels if sentinel.running())

    def _in_sync(self, master: Server) -> bool:
        with contextlib.suppress(OSError, ReplyError):
            expected = sum(node.running() for node in self.nodes) - 1
            replicas = [value for name, value in master.info("replication").items() if name.startswith("slave")]
            online = sum("state=online" in value for value in replicas if value.startswith("ip="))
            linked = sum(node.info("replication").get("master_link_status") == "up" for node in self._others(master))
            return online == linked == expected
        return False

    def _others(self, master: Server) -> list[Server]:
        return [node for node in self.nodes if node is not master and node.running()]

    def _knows_all(self, sentinel: SentinelServer) -> bool:
        told = sentinel.told(self.service)
        return (told["flags"], told["num-slaves"], told["num-other-sentinels"]) == ("master", "2", "2")

    def _agreed(self, other_than: Server | None = None) -> bool:
        """Whether all Sentinels name one master, no failover is going on, and it is one that takes writes."""
        told = [sentinel.told(self.service) for sentinel in self.sentinels if sentinel.running()]
        if len({said["port"] for said in told}) != 1 or any(said["flags"] != "master" for said in told):
            return False
        master = self.master
        with contextlib.suppress(OSError, ReplyError):
            return master is not other_than and master.info("replication")["role"] == "master"
        return False

    def _failover_begun(self) -> bool:
        try:
            return bool(self._sentinel().cli("SENTINEL", "FAILOVER", self.service) == "OK")
        except ReplyError as error:
            if error.args[0].startswith(("INPROG", "NOGOODSLAVE")):
                return False  # one has just ended, or a replica is not seen as good yet
            raise

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what, _IN_TIME, *(server for server in self.sentinels if server.running()))
