"""A RabbitMQ that tests may kill: one for all tests of a process, since each start costs seconds of the machine."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator

import psutil
import pytest

from tests.servers.rabbitmq import RabbitServer, need

__all__ = ["Sturdy", "sturdy", "sturdy_rabbitmq"]


class Sturdy(RabbitServer):
    """A server that is lent to one test after the other, each in virtual hosts of its own."""

    # What comes due while the server recovers its queues is offered to them again after so many milliseconds. The
    # default is three minutes.
    advanced = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}]"
    _numbers = itertools.count(1)

    def fresh_vhost(self) -> str:
        """The name of an empty virtual host, another one each time; it goes when the server is given back."""
        name = f"s{next(self._numbers)}"
        self.add_vhost(name)
        return name

    def fresh_url(self) -> str:
        """The URL of such a one."""
        return self.url_of(self.fresh_vhost())

    def mend(self) -> None:
        """Make it run again, whatever a test has done to it, with nothing left that it would have to recover."""
        if not self.running():
            self.start()
        elif psutil.Process(self.pid).status() == psutil.STATUS_STOPPED:
            self.resume()
        self.eval('[rabbit_vhost:delete(V, <<"camora">>) || V <- rabbit_vhost:list_names(), V =/= <<"/">>]')


@functools.cache
def _sturdy() -> Sturdy:
    server = Sturdy(need())
    server.start()
    return server


@contextlib.contextmanager
def sturdy() -> Iterator[Sturdy]:
    """The server, running: kill it, pause it, set an alarm. It is mended at the end; one at a time has it."""
    server = _sturdy()
    try:
        yield server
    finally:
        server.mend()


@pytest.fixture
def sturdy_rabbitmq() -> Iterator[Sturdy]:
    """The same for one test; its log is shown if that failed."""
    with sturdy() as server:
        yield server
        print(f"the log of the server at {server.port}:\n{server.log[-3000:]}")
