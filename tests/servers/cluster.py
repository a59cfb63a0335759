"""A Cluster of three masters, and a slot that moves between two of them step by step."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tests.servers.binaries import Binary
from tests.servers.ports import free_port
from tests.servers.redis import Options, Server, quoted, wait_until

__all__ = ["Cluster", "Migration", "Node"]

_SLOTS = 16384
_IN_TIME = 30.0  # s


class Node(Server):
    """One server of a Cluster."""

    def __init__(self, binary: Binary, options: Options) -> None:
        super().__init__(binary, options)
        self.bus = 0

    @property
    def id(self) -> str:
        """The name it has in the Cluster."""
        return str(self.cli("CLUSTER", "MYID"))

    def slots(self) -> list[range]:
        """The slots that it thinks are its own; none for a replica."""
        [me] = [line.split() for line in self.cli("CLUSTER", "NODES").splitlines() if "myself" in line]
        found = [re.fullmatch(r"(\d+)(?:-(\d+))?", word) for word in me[8:]]  # in brackets: slots that are moving
        return [range(int(span[1]), int(span[2] or span[1]) + 1) for span in found if span]

    def _config(self) -> Iterator[str]:
        yield from super()._config()
        yield "cluster-enabled yes"
        yield "cluster-config-file nodes.conf"
        if self.binary.version >= (7,):
            self.bus = free_port()
            yield f"cluster-port {self.bus}"
        else:
            self.bus = self.port + 10_000


class Cluster:
    """Three masters that share all slots, each with `replicas` (0 or 1). As a context they are started and closed.

    A node counts as dead after `node_timeout` ms. With `full_coverage`, as a server's default is, all nodes refuse
    when a slot has no master. `options` are those of `tests.servers.redis.Options`, for each node.
    """

    def __init__(
        self, binary: Binary, *, replicas: int = 0, node_timeout: int = 1500, full_coverage: bool = True, **options: Any
    ) -> None:
        self._password: str | None = options.get("password")
        lines = [
            f"cluster-node-timeout {node_timeout}",
            "cluster-replica-validity-factor 0",  # a replica may always take over
            f"cluster-require-full-coverage {'yes' if full_coverage else 'no'}",
            "repl-diskless-sync-delay 0",
            *([f"masterauth {quoted(self._password)}"] if self._password else []),
            *options.pop("config", ()),
        ]
        made = Options(config=lines, **options)
        self.nodes = [Node(binary, made) for _ in range(3 + 3 * replicas)]

    @property
    def url(self) -> str:
        """The URL: it names the first three nodes."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis+cluster://{login}" + ",".join(f"{node.host}:{node.port}" for node in self.nodes[:3])

    @property
    def masters(self) -> list[Node]:
        """The running nodes that have slots."""
        return [node for node in self.nodes if node.running() and node.slots()]

    def start(self) -> Self:
        """Start all and wait until every node knows all others and has its part: some 2 s."""
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                node.cli("CLUSTER", "ADDSLOTS", *range(_SLOTS * number // 3, _SLOTS * (number + 1) // 3))
            for other in self.nodes[:number]:
                node.cli("CLUSTER", "MEET", other.host, other.port, other.bus)
        self._wait(lambda: all(self._knows_all(node) for node in self.nodes), "nodes that know each other")
        for master, replica in zip(self.nodes, self.nodes[3:], strict=False):
            replica.cli("CLUSTER", "REPLICATE", master.id)
        self.wait_ok()
        return self

    def wait_ok(self) -> None:
        """Wait until every running node says that the Cluster is whole, and every replica is in sync and known."""
        self._wait(self._ok, "cluster_state:ok everywhere")

    def slot_of(self, key: str) -> int:
        """The slot of a key."""
        return int(self._running()[0].cli("CLUSTER", "KEYSLOT", key))

    def node_of(self, key: str) -> Node:
        """The running master of a key's slot. Raises LookupError when there is none."""
        slot = self.slot_of(key)
        for node in self._running():
            if any(slot in span for span in node.slots()):
                return node
        raise LookupError(f"no running node has slot {slot}")

    def cli(self, key: str, *args: object) -> Any:
        """One command at the master of a key's slot; the reply."""
        return self.node_of(key).cli(*args)

    def kill(self, node: Node) -> None:
        """Kill a node, and do not wait: the others notice after the node timeout. It may be started again."""
        node.kill()

    def wait_taken_over(self, old: Node, key: str) -> Node:
        """Wait until a replica has taken the key's slot over from `old` and the Cluster is whole. The new master."""

        def taken() -> bool:
            with contextlib.suppress(LookupError):
                return self.node_of(key) is not old
            return False

        self._wait(taken, "a replica that takes over")
        self.wait_ok()
        return self.node_of(key)

    def migration(self, key: str, to: Node) -> Migration:
        """The move of a key's slot to another master, not begun: each of its steps is one call."""
        return Migration(self, self.slot_of(key), self.node_of(key), to)

    def move_slot(self, key: str, to: Node) -> None:
        """Move a key's slot, with all its keys, to another master."""
        migration = self.migration(key, to)
        migration.begin()
        while migration.move():
            pass
        migration.finish()

    def empty(self) -> None:
        """Delete everything."""
        for node in self.masters:
            node.cli("FLUSHALL")

    def close(self) -> None:
        """End all."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            for node in self.nodes:
                error.add_note(f"the end of the log of the node at {node.port}:\n{node.log[-2000:]}")
        self.close()

    def _running(self) -> list[Node]:
        return [node for node in self.nodes if node.running()]

    def _knows_all(self, node: Node) -> bool:
        said = node.cli("CLUSTER", "NODES")  # a node learns its own address from the others
        return "handshake" not in said and all(f" {other.host}:{other.port}@" in said for other in self.nodes)

    def _ok(self) -> bool:
        return all(self._says_ok(node) for node in self._running())

    def _says_ok(self, node: Node) -> bool:
        said = node.cli("CLUSTER", "INFO")
        if "cluster_state:ok" not in said or f"cluster_slots_ok:{_SLOTS}" not in said:
            return False
        masters = sum("master" in line.split()[2].split(",") for line in self._healthy(node))
        if masters != 3:
            return False
        replication = node.info("replication")
        return replication["role"] == "master" or replication["master_link_status"] == "up"

    def _healthy(self, node: Node) -> list[str]:
        return [line for line in node.cli("CLUSTER", "NODES").splitlines() if "fail" not in line.split()[2]]

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what, _IN_TIME, *self._running())


class Migration:
    """A slot on its way from one master to another. Stop after any step: that is the state it then is in.

    Between `begin` and `finish` the source answers ASK for keys that it no longer has. A command whose keys are on
    both sides gets TRYAGAIN (of the source of Redis 6.2: ASK).
    """

    def __init__(self, cluster: Cluster, slot: int, source: Node, target: Node) -> None:
        self._cluster = cluster
        self.slot = slot
        self.source = source
        self.target = target

    def begin(self) -> None:
        """Open the slot on both sides: importing first."""
        self.target.cli("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.id)
        self.source.cli("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.id)

    def move(self, count: int = 100) -> list[str]:
        """Move up to `count` keys; those that were moved."""
        keys: list[str] = self.source.cli("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            self.move_keys(*keys)
        return keys

    def move_keys(self, *keys: str) -> None:
        """Move these keys."""
        password = self.source.options.password
        login = ["AUTH", password] if password else []
        self.source.cli("MIGRATE", self.target.host, self.target.port, "", 0, 10_000, *login, "KEYS", *keys)

    def finish(self) -> None:
        """Give the slot to its new master. All its keys must have been moved."""
        target = self.target.id
        others = [node for node in self._cluster.masters if node not in (self.source, self.target)]
        for node in (self.target, self.source, *others):
            node.cli("CLUSTER", "SETSLOT", self.slot, "NODE", target)
