"""A cluster of RabbitMQ nodes, each with an address of its own on this machine."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from tests.servers.ports import free_port
from tests.servers.process import ServerFailed, wait_until
from tests.servers.rabbitmq import RabbitBinary, RabbitServer

__all__ = ["RabbitCluster", "RabbitNode"]

_IN_TIME = 180.0  # s

_RUNNING = """case erlang:function_exported(rabbit_nodes, list_running, 0) of
    true -> rabbit_nodes:list_running();
    false -> rabbit_nodes:all_running()
end"""

_LEADER = """{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)),
case amqqueue:get_pid(Queue) of
    {{Name, _}} -> {{ok, _, {{_, Leader}}}} = ra:members({{Name, node()}}), Leader;
    Process -> node(Process)
end"""


class RabbitNode(RabbitServer):
    """One node of a cluster."""

    def __init__(
        self,
        binary: RabbitBinary,
        host: str,
        peers: Sequence[str],
        *,
        cookie: str,
        node_port: int,
        tick: int,
        **options: Any,
    ) -> None:
        super().__init__(binary, **options)
        self.host = host
        self.peers = peers
        self.cookie = cookie
        self.node_port = node_port
        self.tick = tick

    def choose_node_port(self) -> int:
        """The same one for all: it is how they find each other."""
        return self.node_port

    def lines(self) -> Iterator[str]:
        """The lines of its `rabbitmq.conf`."""
        yield "cluster_formation.peer_discovery_backend = classic_config"
        for number, peer in enumerate(self.peers, 1):
            yield f"cluster_formation.classic_config.nodes.{number} = rabbit@{peer}"
        # Only one forms the cluster at a time: what it does not find at once is not there.
        yield "cluster_formation.discovery_retry_limit = 1"
        yield "cluster_formation.discovery_retry_interval = 100"
        yield "cluster_partition_handling = pause_minority"
        yield from super().lines()

    def command(self) -> Sequence[str]:
        """The same as for a single one, with the time after which it takes a silent node for dead."""
        return [*super().command(), "-kernel", "net_ticktime", str(self.tick)]

    def members(self) -> set[str]:
        """The names of the running nodes that it knows. Raises `ServerFailed` if it does not say."""
        return set(self.eval(_RUNNING, timeout=10).strip("[]").replace("'", "").split(",")) - {""}


class RabbitCluster:
    """Three nodes; `options` are those of `RabbitServer`, for each. As a context they are started and closed.

    A node may be killed, paused and started again as any server. A node that sees no other stops serving. One that is
    killed is known to be dead at once; one that is silent after `tick` seconds, with 25 % more or less. If
    that one goes on, it may stay apart from the others until it is started again.
    """

    def __init__(self, binary: RabbitBinary, *, tick: int = 60, **options: Any) -> None:
        # Addresses that no other cluster has: so all its nodes can have one port.
        choice = random.SystemRandom()
        network = f"127.{choice.randint(1, 254)}.{choice.randint(1, 254)}"
        hosts = [f"{network}.{number}" for number in range(1, 4)]
        shared: dict[str, Any] = {"cookie": os.urandom(12).hex(), "node_port": free_port(), "tick": tick}
        self.nodes = [RabbitNode(binary, host, hosts, **shared, **options) for host in hosts]

    @property
    def url(self) -> str:
        """The URL that names all nodes."""
        hosts = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    @property
    def urls(self) -> list[str]:
        """The URL of each node."""
        return [node.url for node in self.nodes]

    def start(self) -> Self:
        """Start all nodes that do not run, and wait until all are members and answer: some 10 s."""
        try:
            for node in self.nodes:
                if not node.running():
                    node.launch()
            self.wait_whole()
        except ServerFailed:
            self.close()
            raise
        return self

    def wait_whole(self) -> None:
        """Wait until every running node answers, and knows all the running ones and no others."""
        running = [node for node in self.nodes if node.running()]
        names = {node.name for node in running}
        for node in running:
            node.wait_ready()
        wait_until(lambda: all(_members(node) == names for node in running), "members", _IN_TIME, *running)

    def kill(self, node: RabbitNode) -> None:
        """Kill a node, and do not wait for the others to notice."""
        node.kill()

    def leader_of(self, queue: str, vhost: str = "/") -> RabbitNode:
        """The node that leads a queue, as the others say. Raises LookupError while there is none."""
        code = _LEADER.format(vhost=vhost, queue=queue)
        for asked in self.nodes:
            if asked.running():
                try:
                    name = asked.eval(code, timeout=10).strip("'")
                except (ServerFailed, subprocess.TimeoutExpired):
                    continue  # they are electing one, or this one is paused
                found = next(node for node in self.nodes if node.name == name)
                if found.running():
                    return found
        raise LookupError(f"no running node leads {queue}")

    def wait_leader(self, queue: str, *, other_than: RabbitNode | None = None, vhost: str = "/") -> RabbitNode:
        """Wait until a node leads the queue, another one than this; that node."""
        leaders: list[RabbitNode] = []

        def elected() -> bool:
            try:
                leaders.append(self.leader_of(queue, vhost))
            except LookupError:
                return False
            return leaders[-1] is not other_than

        wait_until(elected, f"a leader of {queue}", _IN_TIME, *(node for node in self.nodes if node.running()))
        return leaders[-1]

    def close(self) -> None:
        """End all for good."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if error is not None:
            for node in self.nodes:
                error.add_note(f"the end of the log of the server at {node.host}:{node.port}:\n{node.log[-2000:]}")


def _members(node: RabbitNode) -> set[str]:
    try:
        return node.members()
    except (ServerFailed, subprocess.TimeoutExpired):
        return set()
