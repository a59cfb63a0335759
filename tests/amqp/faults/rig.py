"""A rig on a private RabbitMQ."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from camora.interfaces.broker import Broker
from processes import workers

from tests.faults import rig as common
from tests.faults.rig import LEASE, TIMEOUT, begun, eventually, more, next_finish
from tests.servers.fixtures import fresh_url
from tests.servers.process import ServerFailed
from tests.servers.rabbitmq_operator import delete_queue, having
from tests.servers.rabbitmq_sturdy import Sturdy, sturdy

__all__ = ["LEASE", "TIMEOUT", "Rig", "begun", "eventually", "more", "next_finish", "rigged"]

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

    server: Sturdy
    queue_type = "quorum"

    def __init__(self, folder: Path, server: Sturdy, *given: Any) -> None:
        super().__init__(folder, server, *given)
        self.vhost = server.fresh_vhost()
        self.results = fresh_url("redis")

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

    def trying_again_after(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Have the server offer what has come due to a full queue again after so long, not after three minutes.

        Queues take it over when they are made.
        """
        return having(self.server, dead_letter_worker_publisher_confirm_timeout=round(seconds * 1000))

    def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it."""
        delete_queue(self.server, queue, self.vhost)

    async def idle(self, broker: Broker) -> bool:
        """Whether no queue holds anything that is still to be done: clients of RabbitMQ cannot tell, the node can."""
        return self.left() == 0


@contextlib.contextmanager
def rigged(folder: Path) -> Iterator[Rig]:
    """A rig, on the server that tests may kill."""
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        rig = Rig(folder, stack.enter_context(sturdy()), stack.enter_context(workers()))
        with rig.proxy:
            yield rig
