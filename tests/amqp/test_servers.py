"""The private RabbitMQ servers do what they say: the faults of the other tests are real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiormq
import psutil
import pytest
from aiormq.abc import AbstractChannel

from tests.servers import rabbitmq
from tests.servers.process import ServerFailed, wait_until
from tests.servers.rabbitmq import RabbitServer, find, fresh_url, fresh_vhost, need, private_rabbitmq, shared
from tests.servers.rabbitmq_operator import ALARMS, alarm, close_connections, connections, delete_queue, having
from tests.servers.rabbitmq_sturdy import sturdy

__all__ = ["private_rabbitmq"]  # a fixture

KINDS = ["classic", "quorum"]
NewServer = Callable[..., RabbitServer]


@contextlib.asynccontextmanager
async def channel_to(url: str, **options: Any) -> AsyncIterator[AbstractChannel]:
    """A channel with confirms, for as long as this lasts, or the connection."""
    connection = await asyncio.wait_for(aiormq.connect(url, **options), 30)
    try:
        yield await connection.channel()
    finally:
        with contextlib.suppress(aiormq.exceptions.AMQPError, OSError):
            await connection.close()


async def publish(url: str, queue: str, body: bytes, kind: str = "classic") -> None:
    """A persistent message in a durable queue, confirmed."""
    async with channel_to(url) as channel:
        await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": kind})
        properties = aiormq.spec.Basic.Properties(delivery_mode=2)
        await channel.basic_publish(body, routing_key=queue, properties=properties)


async def taken(url: str, queue: str) -> bytes | None:
    """The body of a queue's next message; None if it has none."""
    async with channel_to(url) as channel:
        message = await channel.basic_get(queue, no_ack=True)
        return message.body if isinstance(message.delivery, aiormq.spec.Basic.GetOk) else None


def family(server: RabbitServer) -> list[psutil.Process]:
    first = psutil.Process(server.pid)
    return [first, *first.children(recursive=True)]


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    """One for several tests: each of them leaves it running."""
    settings = ["max_message_size = 1000", "channel_max = 7"]
    with RabbitServer(need(), settings=settings, plugins=["rabbitmq_management"]) as made:
        yield made


async def test_a_killed_server_has_its_messages_again(server: RabbitServer) -> None:
    url, processes = server.url, family(server)
    for kind in KINDS:
        await publish(url, kind, b"one", kind)
    server.kill()
    assert len(processes) > 1 and not any(lives(process) for process in processes)
    assert not server.answers()
    server.start()
    assert server.url == url
    assert [await taken(url, kind) for kind in KINDS] == [b"one", b"one"]


async def test_a_stopped_server_ends_in_order(server: RabbitServer) -> None:
    await publish(server.url, "stopped", b"one")
    processes = family(server)
    server.stop()
    assert "SIGTERM received - shutting down" in server.log and not server.running()
    wait_until(lambda: not any(lives(process) for process in processes), "the end of its processes", 20)
    server.start()
    assert await taken(server.url, "stopped") == b"one"


async def test_a_paused_server_is_silent_and_goes_on(server: RabbitServer) -> None:
    async with channel_to(server.url) as channel:
        await channel.queue_declare("paused", durable=True)
        server.pause()
        waiting = asyncio.create_task(channel.basic_publish(b"one", routing_key="paused"))
        assert not server.answers()
        assert psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
        assert not waiting.done()
        server.resume()
        assert await asyncio.wait_for(waiting, 60)
    assert await taken(server.url, "paused") == b"one"


async def test_two_servers_do_not_disturb_each_other(server: RabbitServer, private_rabbitmq: NewServer) -> None:
    one, other = server, private_rabbitmq()
    assert one.name == other.name  # nothing in the system knows of both
    await publish(one.url, "mail", b"one")
    await publish(other.url, "mail", b"other")
    one.eval("rabbit:stop()")
    assert not one.answers() and other.answers()
    one.eval("rabbit:start()")
    one.wait_ready()
    other.kill()
    assert await taken(one.url, "mail") == b"one"


def test_a_server_needs_nothing_that_others_could_end(server: RabbitServer) -> None:
    assert {process.name() for process in family(server)}.isdisjoint({"epmd"})
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in family(server)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {(server.host, port) for port in (server.port, server.node_port, server.management_port)}


def test_a_server_that_cannot_start_shows_its_log() -> None:
    server = RabbitServer(need(), settings=["no_such_setting = 1"])
    with pytest.raises(ServerFailed, match="the server ended"):
        server.start()
    assert "no_such_setting" in server.log and not server.running()


async def test_the_settings_arrive(server: RabbitServer) -> None:
    assert server.eval("application:get_env(rabbit, channel_max)") == "{ok,7}"
    await publish(server.url, "mail", b"x" * 1000)
    with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed, match="1001"):
        await publish(server.url, "mail", b"x" * 1001)


def test_a_plugin_of_the_servers_own_runs(server: RabbitServer) -> None:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    url = f"http://{server.host}:{server.management_port}/api/overview"
    passwords.add_password(None, url, "guest", "guest")
    client = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    with client.open(url, timeout=30) as answer:
        assert ".".join(map(str, server.version)).encode() in answer.read()


async def test_tls_refuses_plain_text_and_is_trusted_by_its_authority_alone(private_rabbitmq: NewServer) -> None:
    server = private_rabbitmq(tls=True)
    assert server.certificates and server.url.startswith("amqps://") and "cafile=" in server.url
    await publish(server.url, "mail", b"secret")
    assert await taken(server.url, "mail") == b"secret"
    with pytest.raises(ssl.SSLCertVerificationError), socket.create_connection((server.host, server.port)) as plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname=server.host)
    with pytest.raises((aiormq.exceptions.AMQPError, OSError)):
        await publish(f"amqp://guest:guest@{server.host}:{server.port}/", "mail", b"plain")


@pytest.mark.parametrize("kind", ALARMS)
async def test_a_server_with_an_alarm_takes_nothing_until_it_is_over(server: RabbitServer, kind: str) -> None:
    async with channel_to(server.url) as channel:
        queue = (await channel.queue_declare(exclusive=True)).queue
        with alarm(server, kind):
            waiting = asyncio.create_task(channel.basic_publish(b"one", routing_key=queue))
            async with asyncio.timeout(60):
                while "blocked" not in await asyncio.to_thread(connections, server, "state"):
                    assert not waiting.done()
        assert await asyncio.wait_for(waiting, 60)


async def test_connections_can_be_closed_by_the_server(server: RabbitServer) -> None:
    connection = await aiormq.connect(server.url)
    close_connections(server, "enough")
    with pytest.raises(aiormq.exceptions.AMQPError, match="enough"):
        await asyncio.wait_for(asyncio.shield(connection.closing), 60)


async def test_a_queue_can_be_deleted_by_the_server(server: RabbitServer) -> None:
    await publish(server.url, "deleted", b"one")
    delete_queue(server, "deleted")
    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
        await taken(server.url, "deleted")


async def test_queues_that_nobody_uses_are_forgotten_if_they_are_named_so(server: RabbitServer) -> None:
    for kind in KINDS:
        await publish(server.url, f"old-{kind}", b"one", kind)
    await publish(server.url, "kept", b"one")
    server.forget_queues("^old-", after=0.1)
    listed = "[N || Q <- rabbit_amqqueue:list(), {resource, _, queue, N} <- [amqqueue:get_name(Q)]]"
    async with asyncio.timeout(60):
        while "old-" in await asyncio.to_thread(server.eval, listed):
            await asyncio.sleep(0.05)
    assert await taken(server.url, "kept") == b"one"


def test_settings_hold_for_a_while(server: RabbitServer) -> None:
    def told(name: str) -> str:
        return server.eval(f"application:get_env(rabbit, {name})")

    with having(server, channel_max=3, nobody_has_set_this=1):
        assert (told("channel_max"), told("nobody_has_set_this")) == ("{ok,3}", "{ok,1}")
    assert (told("channel_max"), told("nobody_has_set_this")) == ("{ok,7}", "undefined")


def test_expressions_have_values_and_say_why_they_fail() -> None:
    server = shared()
    assert server.eval('X = 3, {X * 2, <<"a">>}') == '{6,<<"a">>}'
    with pytest.raises(ServerFailed, match="no_such_module"):
        server.eval("no_such_module:f()")


async def test_the_server_that_tests_may_kill_is_one_and_is_mended() -> None:
    with sturdy() as server:
        url = server.fresh_url()
        await publish(url, "mail", b"one", "quorum")
        server.kill()
    with sturdy() as again:
        assert again is server and again.answers()
        assert again.fresh_url() != url
        with pytest.raises((aiormq.exceptions.AMQPError, OSError)):
            await taken(url, "mail")  # gone, with its virtual host
        again.pause()
    assert again.answers()


async def test_the_shared_server_is_one_and_its_virtual_hosts_are_many() -> None:
    assert shared() is shared()
    one, other = fresh_vhost(), fresh_vhost()
    assert one.rpartition("/")[0] == other.rpartition("/")[0] == shared().url.rpartition("/")[0]
    await publish(one, "mail", b"one")
    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
        await taken(other, "mail")
    assert await taken(one, "mail") == b"one"


def test_each_fresh_url_has_a_prefix_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [fresh_url() for _ in range(3)]
    assert len(set(urls)) == 3
    assert {url.partition("?prefix=t")[0] for url in urls} == {shared().url}
    assert all(url.endswith(".") for url in urls)
    monkeypatch.setenv("CAMORA_TEST_RABBITMQ_URL", "amqps://ann:secret@far/away?verify=no")
    assert fresh_url().startswith("amqps://ann:secret@far/away?verify=no&prefix=t")


def test_a_missing_server_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq, "find", lambda: None)
    monkeypatch.delenv("CAMORA_TEST_RABBITMQ_URL", raising=False)
    assert "no RabbitMQ" in rabbitmq.missing()
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no RabbitMQ"):
        need()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no RabbitMQ"):
        need()


def test_a_server_on_the_path_is_found_behind_a_wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = need()
    bin_, sbin, lib = tmp_path / "bin", tmp_path / "sbin", tmp_path / "lib"
    for folder in (bin_, sbin, lib):
        folder.mkdir()
    (lib / "wrapper").write_text("#!/bin/sh\nexit 1\n")
    (lib / "wrapper").chmod(0o755)
    (sbin / "rabbitmq-server").symlink_to(lib / "wrapper")
    (lib / "rabbitmq-server").symlink_to(there.home / "sbin" / "rabbitmq-server")
    (bin_ / "erl").symlink_to(there.erlang / "bin" / "erl")
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (bin_, sbin))))
    for folder in there.libraries:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    found = find.__wrapped__()
    assert found and (found.home, found.erlang, found.version) == (there.home, there.erlang, there.version)
    assert not found.libraries


# Says the server's process and folder, then ends as it is told: a server that is starting is as hard to end as another.
PROGRAM = """
import os, signal, sys
from tests.servers.rabbitmq import RabbitServer, need
server = RabbitServer(need())
server.launch()
print(server.pid, server.folder, flush=True)
sys.stdin.readline()
if "paused" in sys.argv:
    server.pause()
if "killed" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", [["killed"], ["returns"], ["paused", "killed"]], ids="-".join)
def test_nothing_outlives_its_test_process(how: list[str]) -> None:
    need()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdin and program.stdout
        pid, _, folder = program.stdout.readline().strip().partition(" ")
        first = psutil.Process(int(pid))
        wait_until(lambda: bool(first.children()), "a process of the server's own", 60)
        processes = [first, *first.children(recursive=True)]
        program.stdin.write("\n")
    wait_until(lambda: not any(lives(process) for process in processes), "the end of all processes", 60)
    wait_until(lambda: not Path(folder).exists(), "the end of its folder", 60)
