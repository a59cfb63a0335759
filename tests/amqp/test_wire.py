"""One connection: every call has an answer or an end, and what is in doubt is never used again."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from camora_amqp.confirming import Confirming
from camora_amqp.errors import Refused, WireLost
from camora_amqp.link import connect
from camora_amqp.store import Store
from camora_amqp.wire import Wire
from pamqp import commands, frame

from tests.amqp.talking import LOOPS, declare, failure_of, listen, message, run, telling, wire_to
from tests.end_to_end.processes import until
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import shared
from tests.servers.rabbitmq_operator import close_connections, connections, having

Main = Callable[[Wire], Coroutine[Any, Any, None]]
each_loop = pytest.mark.parametrize("loop", list(LOOPS))


def with_wire(loop: str, main: Main, url: str = "", **options: float) -> None:
    """Run it with a wire to the shared server."""

    async def whole() -> None:
        async with wire_to(url or shared().url, **options) as wire:
            await main(wire)

    run(loop, whole())


@pytest.fixture
def proxy() -> Any:
    server = shared()
    with Proxy((server.host, server.port)) as made:
        yield made


def through(proxy: Proxy, options: str = "") -> str:
    return f"amqp://127.0.0.1:{proxy.port}?{options}"


# Bodies


@each_loop
def test_bodies_of_any_size_come_back_as_they_went(loop: str) -> None:
    edge = 131_072 - 8
    sizes = [0, 1, edge - 1, edge, edge + 1, 2 * edge, 2 * edge + 1, 20_000_000, 0, 7]

    async def main(wire: Wire) -> None:
        channel = await wire.channel()
        await declare(channel, "")
        queue = (await channel.call(commands.Queue.Declare(0, "", exclusive=True))).queue
        came = await listen(channel, queue)
        out = await Confirming.on(wire)
        bodies = [os.urandom(size) for size in sizes]
        reasons = await out.send([message(queue, body, str(place)) for place, body in enumerate(bodies)])
        assert reasons == [None] * len(sizes)
        for body in bodies:
            assert (await came.get()).body == body

    with_wire(loop, main)


@each_loop
def test_thousands_in_flight_each_have_their_own_answer(loop: str) -> None:
    async def main(wire: Wire) -> None:
        channel = await wire.channel()
        await declare(channel, "crowd")
        came = await listen(channel, "crowd")
        out = await Confirming.on(wire)
        most = 0

        async def send(number: int) -> None:
            nonlocal most
            known = number % 7
            batch = [message("crowd" if place != known else f"nowhere-{number}", b"x", f"{number}-{place}")
                     for place in range(7)]  # fmt: skip
            sending = asyncio.ensure_future(out.send(batch))
            await asyncio.sleep(0)
            most = max(most, out.in_flight)
            assert await sending == ["NO_ROUTE" if place == known else None for place in range(7)]

        await asyncio.gather(*(send(number) for number in range(1000)))
        assert most == 7000 and out.in_flight == 0
        for _ in range(6000):
            await came.get()
        assert came.empty()

    with_wire(loop, main)


async def test_a_queue_that_is_full_refuses() -> None:
    async with wire_to(shared().url) as wire:
        channel = await wire.channel()
        await declare(channel, "narrow", **{"x-max-length": 3, "x-overflow": "reject-publish"})
        out = await Confirming.on(wire)
        reasons = await out.send([message("narrow", b"x", str(number)) for number in range(10)])
        assert reasons[:3] == [None] * 3
        assert all(reason and "refused by the queue" in reason for reason in reasons[3:])
        assert wire.error is None


# Errors of one channel


async def test_a_channel_that_the_server_closes_takes_no_other_along() -> None:
    async with wire_to(shared().url) as wire:
        good, bad = await wire.channel(), await wire.channel()
        await declare(good, "works")
        came = await listen(good, "works")
        out = await Confirming.on(wire)
        told: list[Exception] = []
        bad.on_close = told.append
        sending = asyncio.ensure_future(out.send([message("works", b"x", str(number)) for number in range(100)]))
        with pytest.raises(Refused, match=r"no queue 'nowhere'.*\(404\)") as error:
            await bad.call(commands.Queue.Declare(0, "nowhere", passive=True))
        assert error.value.code == 404 and told == [error.value] and bad.error is error.value
        with pytest.raises(Refused):
            await bad.call(commands.Basic.Qos(0, 1, False))
        assert await sending == [None] * 100
        for _ in range(100):
            await came.get()
        assert wire.error is None


async def test_numbers_of_channels_are_used_again() -> None:
    with having(shared(), channel_max=3):
        async with wire_to(shared().url) as wire:
            kept = await wire.channel()
            for _ in range(20):
                channel = await wire.channel()
                with pytest.raises(Refused):
                    await channel.call(commands.Queue.Declare(0, "nowhere", passive=True))
            assert list(wire.channels) == [kept.number]
            for _ in range(2):
                await wire.channel()
            with pytest.raises(Refused, match="allows 3 channels"):
                await wire.channel()
            assert wire.error is None


async def test_publishing_where_nothing_is_ends_the_channel_and_says_so() -> None:
    async with wire_to(shared().url) as wire:
        out = await Confirming.on(wire)
        with pytest.raises(WireLost, match="no exchange 'nowhere'"):
            await out.send([message("key", b"x", exchange="nowhere")])
        assert wire.error is None
        again = await Confirming.on(wire)
        assert await again.send([message("nowhere", b"x")]) == ["NO_ROUTE"]


# Calls that are cut off


@each_loop
def test_a_cancelled_call_takes_its_connection_along_and_no_answer_goes_astray(loop: str) -> None:
    async def main(wire: Wire) -> None:
        channel = await wire.channel()
        calling = asyncio.ensure_future(channel.call(commands.Basic.Qos(0, 1, False)))
        waiting = asyncio.ensure_future(channel.call(commands.Basic.Qos(0, 2, False)))
        await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        with pytest.raises(WireLost, match=r"Basic.Qos was cancelled before its answer came"):
            await waiting
        assert wire.closed.done()

    with_wire(loop, main)


async def test_cancelled_while_it_waits_for_its_turn_disturbs_nobody() -> None:
    async with wire_to(shared().url) as wire:
        channel = await wire.channel()
        calling = asyncio.ensure_future(channel.call(commands.Basic.Qos(0, 1, False)))
        waiting = asyncio.ensure_future(channel.call(commands.Basic.Qos(0, 2, False)))
        await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance(await calling, commands.Basic.QosOk)
        assert isinstance(await channel.call(commands.Basic.Qos(0, 3, False)), commands.Basic.QosOk)


async def test_a_cancelled_publication_leaves_the_others_theirs() -> None:
    async with wire_to(shared().url) as wire:
        channel = await wire.channel()
        await declare(channel, "some")
        came = await listen(channel, "some")
        out = await Confirming.on(wire)
        sending = [asyncio.ensure_future(out.send([message("some", b"%d" % number)])) for number in range(100)]
        await asyncio.sleep(0)
        for one in sending[::2]:
            one.cancel()
        answers = await asyncio.gather(*sending, return_exceptions=True)
        assert answers[1::2] == [[None]] * 50
        assert all(isinstance(one, asyncio.CancelledError) for one in answers[::2])
        for number in range(100):
            assert (await came.get()).body == b"%d" % number
        assert await out.send([message("some", b"last")]) == [None]


async def test_an_answer_that_does_not_come_ends_the_connection(proxy: Proxy) -> None:
    async with wire_to(through(proxy, "timeout=0.3")) as wire:
        channel, other = await wire.channel(), await wire.channel()
        out = await Confirming.on(wire)
        proxy.drop_replies()
        sending = asyncio.ensure_future(out.send([message("nowhere", b"x")]))
        with pytest.raises(WireLost, match=r"no answer to Basic.Qos within 0.3 s") as error:
            await channel.call(commands.Basic.Qos(0, 1, False))
        assert error.value.sent
        with pytest.raises(WireLost):
            await sending
        with pytest.raises(WireLost):
            await other.call(commands.Basic.Qos(0, 1, False))


async def test_confirmations_that_do_not_come_end_the_connection(proxy: Proxy) -> None:
    async with wire_to(through(proxy, "timeout=0.3")) as wire:
        out = await Confirming.on(wire)
        proxy.drop_replies()
        with pytest.raises(WireLost, match=r"no confirmation within 0.3 s") as error:
            await out.send([message("nowhere", b"x")])
        assert error.value.sent and wire.error is not None and out.in_flight == 0


# Heartbeats


@each_loop
@pytest.mark.parametrize("how", ["hold", "drop_replies"])
def test_a_server_that_falls_silent_is_noticed(loop: str, how: str, proxy: Proxy) -> None:
    async def main(wire: Wire) -> None:
        getattr(proxy, how)()
        async with asyncio.timeout(30):
            error = await wire.closed
        assert isinstance(error, WireLost) and "has been silent for" in str(error)

    with_wire(loop, main, through(proxy), heartbeat=1.0)


@each_loop
def test_a_quiet_connection_lives_on_both_sides(loop: str) -> None:
    async def main(wire: Wire) -> None:
        # Three intervals: either side would have given up.
        done, _ = await asyncio.wait([wire.closed], timeout=3.5)
        assert not done
        await wire.channel()

    with_wire(loop, main, heartbeat=1.0)


@each_loop
def test_a_loop_that_stood_still_does_not_take_the_server_for_dead(loop: str) -> None:
    async def main(wire: Wire) -> None:
        channel = await wire.channel()
        time.sleep(2.2)  # the server cuts it after 3 s of silence; after 2 s of its silence we would
        await asyncio.sleep(0.3)
        assert isinstance(await channel.call(commands.Basic.Qos(0, 1, False)), commands.Basic.QosOk)

    with_wire(loop, main, heartbeat=1.0)


# What operators see


async def test_operators_see_who_it_is() -> None:
    server = shared()
    with having(server, heartbeat=7):
        wire = await connect(Store.of_url(f"{server.url}?name=shop"), purpose="mail-1", heartbeat=3.0)
    try:
        told = await asyncio.to_thread(connections, server, "timeout", "user", "vhost", "client_properties")
        assert '[3,<<"guest">>,<<"/">>,[' in told
        assert '{<<"connection_name">>,longstr,<<"shop: mail-1">>}' in told
        assert '{<<"product">>,longstr,<<"camora">>}' in told
        await asyncio.to_thread(close_connections, server, "maintenance tonight")
        error = await asyncio.wait_for(wire.closed, 30)
        assert "maintenance tonight" in str(error) and "320" in str(error)
    finally:
        await wire.close()


# Others that listen


async def tell_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


async def tell_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"-ERR unknown command 'AMQP', with args beginning with: \r\n")
    await reader.read()


async def tell_another_version(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(8)
    writer.write(b"AMQP\x00\x01\x00\x00")
    writer.close()


async def tell_smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.test ESMTP\r\n")
    await reader.read()


async def tell_a_huge_frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x01\x00\x00\xff\xff\xff\xff" + b"x" * 100)
    await reader.read()


async def tell_tune_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(frame.marshal(commands.Connection.Tune(0, 131_072, 60), 0))
    await reader.read()


async def tell_nothing_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


async def tell_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


STRANGERS: dict[str, tuple[Any, type[Exception], str]] = {
    "http": (tell_http, Refused, "there is no RabbitMQ, it says 'HTTP/1.1 400 Bad Request"),
    "redis": (tell_redis, Refused, 'there is no RabbitMQ, it says "-ERR unknown command'),
    "smtp": (tell_smtp, Refused, "there is no RabbitMQ, it says '220 mail.example.test"),
    "another version": (tell_another_version, Refused, "another version of AMQP than 0-9-1"),
    "a huge frame": (tell_a_huge_frame, Refused, "there is no RabbitMQ"),
    "tune first": (tell_tune_first, Refused, "answers Connection.Tune where Connection.Start was due"),
    "nothing": (tell_nothing, WireLost, "does not answer within 0.5 s"),
    "the end": (tell_nothing_and_close, WireLost, "ends the connection before any greeting"),
}


@each_loop
@pytest.mark.parametrize("who", list(STRANGERS))
def test_somebody_else_listens_there(loop: str, who: str, caplog: pytest.LogCaptureFixture) -> None:
    tell, kind, words = STRANGERS[who]

    async def main() -> None:
        async with telling(tell) as port:
            error = await failure_of(f"amqp://ann:secret@127.0.0.1:{port}?timeout=0.5")
        assert type(error) is kind and words in str(error) and f"127.0.0.1:{port}" in str(error)
        assert "secret" not in str(error)

    with caplog.at_level(logging.DEBUG):
        run(loop, main())
    assert not [record for record in caplog.records if record.exc_info]


async def test_garbage_in_the_middle_ends_it(proxy: Proxy) -> None:
    async def middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(shared().host, shared().port)

        async def back() -> None:
            while data := await there_reader.read(65536):
                # The answer to opening a channel becomes something that does not exist.
                writer.write(data.replace(b"\x00\x14\x00\x0b", b"\x03\xe7\x03\xe7"))

        task = asyncio.ensure_future(back())
        while data := await reader.read(65536):
            there_writer.write(data)
        task.cancel()
        there_writer.transport.abort()

    async with telling(middle) as port:
        wire = await connect(Store.of_url(f"amqp://127.0.0.1:{port}?timeout=5"), purpose="test", heartbeat=20)
        with pytest.raises(WireLost, match="sent what cannot be read"):
            await wire.channel()


# The end


@each_loop
def test_closing_tells_the_server_and_what_was_written_before_counts(loop: str) -> None:
    server = shared()

    async def main() -> None:
        async with wire_to(server.url) as wire:
            channel = await wire.channel()
            await channel.call(commands.Queue.Declare(0, f"kept-{loop}", auto_delete=False, durable=True))
            out = await Confirming.on(wire)
            sending = asyncio.ensure_future(out.send([message(f"kept-{loop}", b"x", str(n)) for n in range(500)]))
            await asyncio.sleep(0)
        with pytest.raises(WireLost):
            await sending
        async with wire_to(server.url) as wire:
            channel = await wire.channel()
            assert (await channel.call(commands.Queue.Delete(0, f"kept-{loop}"))).message_count == 500

    run(loop, main())


@each_loop
def test_opening_and_closing_again_and_again_leaves_nothing(loop: str) -> None:
    server = shared()

    async def main() -> None:
        process, tasks, threads = psutil.Process(), len(asyncio.all_tasks()), threading.active_count()
        for number in range(80):
            async with wire_to(server.url) as wire:
                await (await wire.channel()).call(commands.Basic.Qos(0, 1, False))
            if number == 20:
                gc.collect()
                sockets, objects = process.num_fds(), len(gc.get_objects())
        await asyncio.sleep(0.05)
        gc.collect()
        assert process.num_fds() <= sockets
        assert len(gc.get_objects()) < objects + 2000
        assert (len(asyncio.all_tasks()), threading.active_count()) == (tasks, threads)

    run(loop, main())


@each_loop
@pytest.mark.parametrize("closed", [True, False], ids=["closed loop", "stopped loop"])
def test_abandoning_when_the_loop_is_gone(loop: str, closed: bool) -> None:
    server = shared()
    made = LOOPS[loop]()
    store = Store.of_url(f"{server.url}?name=abandoned-{loop}-{closed}")

    def connections() -> int:
        return server.eval(
            "[proplists:get_value(client_properties, P) || P <- rabbit_networking:connection_info_all()]"
        ).count(f"abandoned-{loop}-{closed}")

    wire = made.run_until_complete(connect(store, purpose="test", heartbeat=60))
    assert connections() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if loop == "uvloop" else "error", ResourceWarning)
        if closed:
            made.close()
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            threads.submit(wire.abandon).result()
    if not closed:
        made.run_until_complete(wire.closed)
        made.run_until_complete(asyncio.sleep(0.01))
        made.close()
    until(lambda: connections() == 0, "the end of the connection")
    del wire
    gc.collect()


@each_loop
@pytest.mark.parametrize("how", ["hold", "refuse"])
def test_closing_is_bounded_when_nobody_hears_it(loop: str, how: str, proxy: Proxy) -> None:
    async def main() -> None:
        wire = await connect(Store.of_url(through(proxy)), purpose="test", heartbeat=60)
        await wire.channel()
        getattr(proxy, how)()
        if how == "refuse":
            proxy.cut()
        began = time.monotonic()
        await wire.close()
        assert time.monotonic() - began < 5

    run(loop, main())
