"""A rig on a private RabbitMQ."""

from __future__ import annotations

import contextlib
import functools
import itertools
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
from camora.interfaces.broker import Broker
from processes import workers

from tests.faults import rig as common
from tests.faults.rig import LEASE, TIMEOUT, begun, eventually, more, next_finish
from tests.servers.fixtures import fresh_url
from tests.servers.process import ServerFailed
from tests.servers.rabbitmq import RabbitServer, need

__all__ = ["LEASE", "TIMEOUT", "Rig", "begun", "eventually", "more", "next_finish", "rigged"]

_vhosts = itertools.count(1)

_TO_BE_DONE = """
lists:sum([case amqqueue:get_type(Queue) of
    rabbit_quorum_queue ->
        {{ok, {{_, Count}}, _}} = ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1),
        Count;
    _ ->
        [{{messages, Count}}] = rabbit_amqqueue:info(Queue, [messages]),
        Count
end || Queue <- rabbit_amqqueue:list(<<"{vhost}">>), element(4, amqqueue:get_name(Queue)) =/= <<"camora.dead">>])
"""
"""Messages of all queues but the dead letters': ready, in workers' hands, or waiting for their time. A quorum queue
tells others only what was so some seconds ago; here it is asked itself."""


class Rig(common.Rig):
    """Everything of one test, in a virtual host of its own. Results are kept beside it, in Redis.

    Not in a file: who is stopped while it writes to one would stop all.
    """

    server: RabbitServer
    queue_type = "quorum"

    def __init__(self, folder: Path, server: RabbitServer, *given: Any) -> None:
        super().__init__(folder, server, *given)
        self.vhost = f"rig-{next(_vhosts)}"
        self.results = fresh_url("redis")
        server.add_vhost(self.vhost)

    def url(self, *, through: bool = False, user: str = "", **options: Any) -> str:
        """The URL of the server, or of the network in front of it."""
        bare = self.server.url_of(
            self.vhost, user=user or "guest:guest", port=self.proxy.port if through else self.server.port
        )
        query = {"timeout": TIMEOUT, "heartbeat": 1, "queue_type": self.queue_type, **options}
        return f"{bare}?{urlencode(query)}"

    def left(self) -> int:
        """How many messages there are that are no dead letters; -1 while a queue has no leader."""
        try:
            return int(self.server.eval(_TO_BE_DONE.format(vhost=self.vhost)))
        except (ServerFailed, subprocess.TimeoutExpired):
            return -1

    def limit(self, queue: str, length: int) -> None:
        """Have a queue take no more messages than so many, by a policy as operators set it."""
        self.server.eval(
            f'ok = rabbit_policy:parse_set(<<"{self.vhost}">>, <<"small">>, <<"^{queue}$">>, '
            f'<<"{{\\"max-length\\":{length}}}">>, <<"0">>, <<"queues">>, <<"camora">>)'
        )

    def try_again_after(self, seconds: float) -> None:
        """Have the server offer what has come due to a full queue again after so long, not after three minutes.

        Queues take it over when they are made, and a server that starts again has forgotten it.
        """
        self.server.eval(
            f"application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, {round(seconds * 1000)})"
        )

    def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it."""
        self.server.eval(
            f'{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{self.vhost}">>, queue, <<"{queue}">>)), '
            '{ok, _} = rabbit_amqqueue:delete(Queue, false, false, <<"camora">>)'
        )

    async def idle(self, broker: Broker) -> bool:
        """Whether no queue holds anything that is still to be done: clients of RabbitMQ cannot tell, the node can."""
        return self.left() == 0


@functools.cache
def _sturdy() -> RabbitServer:
    """The server of all rigs of this process that ask for nothing special: each leaves it as it was."""
    return RabbitServer(need()).start()


def _whole(server: RabbitServer) -> None:
    """Make it run again, whatever a test has done to it."""
    if not server.running():
        server.start()
    elif psutil.Process(server.pid).status() == psutil.STATUS_STOPPED:
        server.resume()


@contextlib.contextmanager
def rigged(folder: Path, *, settings: Sequence[str] = ()) -> Iterator[Rig]:
    """A rig, on a server of its own if that has lines of configuration."""
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        if settings:
            server = stack.enter_context(RabbitServer(need(), settings=settings))
        else:
            server = _sturdy()
            stack.callback(_whole, server)
        rig = Rig(folder, server, stack.enter_context(workers()))
        with rig.proxy:
            yield rig
