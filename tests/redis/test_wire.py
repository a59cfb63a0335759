"""One connection: every call has an answer or an end, and what is in doubt is never used again."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from camora_redis.errors import ConnectionLost, ServerError
from camora_redis.wire import Wire, pack
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from tests.redis.loops import LOOPS, bare, run, telling
from tests.servers.fixtures import private_server, shared
from tests.servers.redis import Server

__all__ = ["private_server"]

pytestmark = pytest.mark.parametrize("loop", list(LOOPS))
Main = Callable[[Wire], Coroutine[Any, Any, None]]
_TIMEOUT = 0.2


def with_wire(loop: str, main: Main, *, timeout: float = 5.0, heard: Any = None, **options: Any) -> None:
    """Run it with a wire to the shared server."""
    server = shared()
    assert isinstance(server, Server)

    async def whole() -> None:
        connection = Connection(host=server.host, port=server.port, **options)
        await connection.connect()  # type: ignore[no-untyped-call]
        wire = Wire(timeout, heard)
        wire.take_over(connection)
        await main(wire)
        await wire.close()

    run(loop, whole())


async def told(what: bytes, main: Main, *, heard: Any = None) -> None:
    """Run it with a wire to a server that says this at once, whatever it is asked."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(what)
            await reader.read()

    async with telling(tell) as port:
        wire = Wire(_TIMEOUT, heard)
        wire.take_over(await bare(port))
        await main(wire)
        await wire.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_answers_come_in_order(loop: str, protocol: int) -> None:
    async def main(wire: Wire) -> None:
        answers = await asyncio.gather(*(wire.call("ECHO", str(number)) for number in range(2000)))
        assert answers == [str(number).encode() for number in range(2000)]
        assert wire.idle

    with_wire(loop, main, protocol=protocol)


def test_an_error_is_the_answer_of_its_own_call_only(loop: str) -> None:
    async def main(wire: Wire) -> None:
        answers = await asyncio.gather(
            wire.call("ECHO", "a"), wire.call("NOSUCH"), wire.call("ECHO", "b"), return_exceptions=True
        )
        assert answers[0] == b"a"
        assert isinstance(answers[1], ServerError) and answers[1].code == "ERR"
        assert answers[2] == b"b"

    with_wire(loop, main)


def test_cancelled_calls_shift_no_answers(loop: str) -> None:
    async def main(wire: Wire) -> None:
        calls = [asyncio.ensure_future(wire.call("ECHO", str(number))) for number in range(300)]
        await asyncio.sleep(0)  # all are sent
        for call in calls[::3]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for number, answer in enumerate(answers):
            assert isinstance(answer, asyncio.CancelledError) if number % 3 == 0 else answer == str(number).encode()
        assert await wire.call("ECHO", "after") == b"after"

    with_wire(loop, main)


def test_a_call_that_is_cancelled_before_it_is_sent_harms_nobody(loop: str) -> None:
    async def main(wire: Wire) -> None:
        wire.send(pack(("ECHO", "never"))).cancel()
        assert await wire.call("ECHO", "next") == b"next"

    with_wire(loop, main)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_huge_answer_comes_whole(loop: str, protocol: int) -> None:
    body = b"camora" * 5_000_000

    async def main(wire: Wire) -> None:
        big, small = await asyncio.gather(wire.call("ECHO", body), wire.call("ECHO", "small"))
        assert big == body
        assert small == b"small"

    with_wire(loop, main, protocol=protocol, timeout=30)


def test_a_silent_server_ends_all_calls_and_the_connection(loop: str) -> None:
    async def main(wire: Wire) -> None:
        began = time.monotonic()
        answers = await asyncio.gather(*(wire.call("PING") for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ConnectionLost] * 3
        assert len({id(answer) for answer in answers}) == 3
        assert _TIMEOUT <= time.monotonic() - began < 60 * _TIMEOUT
        assert wire.closed
        await wire.ended()
        with pytest.raises(ConnectionLost):
            await wire.call("PING")

    run(loop, told(b"", main))


def test_an_answer_that_may_take_longer_has_its_own_deadline(loop: str) -> None:
    async def main(wire: Wire) -> None:
        answer = await wire.call("BLPOP", "camora:no-such-list", 4 * _TIMEOUT, longer=4 * _TIMEOUT)
        assert answer is None
        assert not wire.closed

    with_wire(loop, main, timeout=_TIMEOUT)


def test_an_answer_that_lies_here_unread_is_not_overdue(loop: str) -> None:
    async def main(wire: Wire) -> None:
        call = asyncio.ensure_future(wire.call("ECHO", "here"))
        await asyncio.sleep(0.01)
        calls = [call, asyncio.ensure_future(wire.call("ECHO", "too"))]
        await asyncio.sleep(0)
        time.sleep(2 * _TIMEOUT)  # somebody blocks the loop for longer than the timeout
        assert await asyncio.gather(*calls) == [b"here", b"too"]

    with_wire(loop, main, timeout=_TIMEOUT)


def test_a_torn_answer_is_no_answer(loop: str) -> None:
    async def main(wire: Wire) -> None:
        with pytest.raises(ConnectionLost):
            await wire.call("GET", "a")
        assert wire.closed

    run(loop, told(b"$100\r\nhalf of", main))


def test_what_is_no_resp_ends_the_connection(loop: str) -> None:
    async def main(wire: Wire) -> None:
        with pytest.raises(ConnectionLost, match="no Redis"):
            await wire.call("GET", "a")
        assert wire.closed

    run(loop, told(b"HTTP/1.1 400 Bad Request\r\n\r\n", main))


def test_an_answer_out_of_the_blue_ends_the_connection(loop: str) -> None:
    async def main(wire: Wire) -> None:
        assert await wire.call("GET", "a") == b"OK"
        await wire.ended()
        with pytest.raises(ConnectionLost):
            await wire.call("GET", "b")

    run(loop, told(b"+OK\r\n+SURPRISE\r\n", main))


def test_pushed_messages_are_no_answers(loop: str) -> None:
    heard: list[Any] = []

    async def main(wire: Wire) -> None:
        assert await wire.call("GET", "a") == b"OK"
        assert heard == [[b"message", b"c", b"m"]]

    run(loop, told(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n+OK\r\n", main, heard=heard.append))


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_wire_that_listens_hears_channels(loop: str, protocol: int) -> None:
    heard: list[Any] = []
    channel = f"camora-wire-{loop}-{protocol}"

    async def main(wire: Wire) -> None:
        wire.tell(pack(("SUBSCRIBE", channel)))
        async with asyncio.timeout(60):
            while not heard:
                await asyncio.sleep(0.005)
            shared().cli("PUBLISH", channel, "hello")
            while len(heard) < 2:
                await asyncio.sleep(0.005)
        assert heard[1] == [b"message", channel.encode(), b"hello"]

    with_wire(loop, main, protocol=protocol, heard=heard.append)


def test_a_killed_connection_ends_its_calls(loop: str) -> None:
    async def main(wire: Wire) -> None:
        number = await wire.call("CLIENT", "ID")
        waiting = asyncio.ensure_future(wire.call("BLPOP", "camora:no-such-list", 30, longer=30))
        await asyncio.sleep(0)
        await asyncio.to_thread(shared().cli, "CLIENT", "KILL", "ID", number)
        with pytest.raises(ConnectionLost):
            await waiting
        assert wire.closed

    with_wire(loop, main)


def test_a_retired_wire_gives_the_answers_that_it_owes(loop: str) -> None:
    async def main(wire: Wire) -> None:
        owed = [wire.send(pack(("ECHO", str(number)))) for number in range(3)]
        wire.retire()
        with pytest.raises(ConnectionLost):
            await wire.call("ECHO", "more")
        assert await asyncio.gather(*owed) == [b"0", b"1", b"2"]
        async with asyncio.timeout(60):
            await wire.ended()

    with_wire(loop, main)


def test_closing_ends_calls_and_may_be_repeated(loop: str) -> None:
    async def main(wire: Wire) -> None:
        waiting = asyncio.ensure_future(wire.call("BLPOP", "camora:no-such-list", 30, longer=30))
        await asyncio.sleep(0)
        await wire.close()
        await wire.close()
        with pytest.raises(ConnectionLost):
            await waiting

    with_wire(loop, main)


def test_closing_does_not_wait_for_a_peer_that_reads_nothing(loop: str) -> None:
    async def main(wire: Wire) -> None:
        for _ in range(200):
            wire.send(pack(("ECHO", b"x" * 200_000))).cancel()
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await wire.close()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def whole() -> None:
        async with telling(deaf) as port:
            wire = Wire(30)
            wire.take_over(await bare(port))
            await main(wire)

    run(loop, whole())


def test_a_connection_that_was_lost_before_it_was_handed_over(loop: str) -> None:
    async def whole() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        async with telling(hang_up) as port:
            connection = await bare(port)
            await asyncio.sleep(0.05)
            wire = Wire(_TIMEOUT)
            wire.take_over(connection)
            with pytest.raises(ConnectionLost):
                await wire.call("PING")
            await wire.close()

    run(loop, whole())


def test_connections_are_kept_alive(loop: str) -> None:
    async def main(wire: Wire) -> None:
        found = wire._transport.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    with_wire(loop, main, socket_keepalive=True)


@pytest.mark.parametrize("how", ["tls", "unix"])
def test_other_transports(loop: str, how: str, private_server: Callable[..., Server]) -> None:
    server = private_server(tls=how == "tls", unix_socket=how == "unix")
    body = b"x" * 3_000_000

    async def whole() -> None:
        connection: Any
        if how == "tls":
            assert server.certificates is not None
            authority = str(server.certificates.authority)
            connection = SSLConnection(host=server.host, port=server.port, ssl_ca_certs=authority)
        else:
            connection = UnixDomainSocketConnection(path=str(server.socket))
        await connection.connect()
        wire = Wire(10)
        wire.take_over(connection)
        assert await asyncio.gather(*(wire.call("ECHO", body) for _ in range(3))) == [body] * 3
        silent = asyncio.ensure_future(wire.call("BLPOP", "none", 30, longer=30))
        await asyncio.sleep(0)
        server.pause()
        try:
            async with asyncio.timeout(60):
                await wire.close()  # nobody answers the parting
        finally:
            server.resume()
        with pytest.raises(ConnectionLost):
            await silent

    run(loop, whole())


@pytest.mark.parametrize("how", ["plain", "tls"])
def test_abandoning_when_the_loop_is_gone(loop: str, how: str, private_server: Callable[..., Server]) -> None:
    server = private_server(tls=how == "tls")
    made = LOOPS[loop]()

    async def open_one() -> Wire:
        kind: Any = SSLConnection if how == "tls" else Connection
        options = {"ssl_ca_certs": str(server.certificates.authority)} if server.certificates else {}
        connection = kind(host=server.host, port=server.port, **options)
        await connection.connect()
        wire = Wire(5)
        wire.take_over(connection)
        await wire.call("PING")
        return wire

    wire = made.run_until_complete(open_one())
    with warnings.catch_warnings():
        # This loop closes what is open itself, and complains already then.
        warnings.simplefilter("ignore" if loop == "uvloop" else "error", ResourceWarning)
        made.close()
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            threads.submit(wire.abandon).result()
    assert wire.closed
    assert _gone(server)
    del wire
    gc.collect()


def test_abandoning_while_the_loop_runs_elsewhere(loop: str) -> None:
    async def main(wire: Wire) -> None:
        waiting = asyncio.ensure_future(wire.call("BLPOP", "camora:no-such-list", 30, longer=30))
        await asyncio.sleep(0)
        await asyncio.to_thread(wire.abandon)
        with pytest.raises(ConnectionLost):
            await waiting

    with_wire(loop, main)


def _gone(server: Server) -> bool:
    """Whether the test's own connection becomes the only one."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if len(server.cli("CLIENT", "LIST").splitlines()) == 1:
            return True
        time.sleep(0.01)
    return False


def test_errors_of_commands_in_scripts_keep_their_code(loop: str, private_server: Callable[..., Server]) -> None:
    server = private_server("redis-6.2", config=["replica-read-only yes"])
    other = shared()
    assert isinstance(other, Server)
    server.cli("REPLICAOF", other.host, other.port)

    async def whole() -> None:
        connection = Connection(host=server.host, port=server.port)
        await connection.connect()  # type: ignore[no-untyped-call]
        wire = Wire(5)
        wire.take_over(connection)
        with pytest.raises(ServerError) as caught:
            await wire.call("EVAL", "return redis.call('SET', KEYS[1], '1')", 1, "a")
        assert caught.value.code == "READONLY"
        await wire.close()

    run(loop, whole())
