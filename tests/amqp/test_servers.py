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
from tests.servers.rabbitmq_cluster import RabbitCluster

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


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_server_has_its_messages_again(server: RabbitServer, kind: str) -> None:
    url, processes = server.url, family(server)
    await publish(url, kind, b"one", kind)
    server.kill()
    assert len(processes) > 1 and not any(lives(process) for process in processes)
    assert not server.answers()
    server.start()
    assert server.url == url
    assert await taken(url, kind) == b"one"


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
    one.ctl("stop_app")
    assert not one.answers() and other.answers()
    one.ctl("start_app")
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


async def test_mutual_tls_wants_a_certificate_of_the_client(private_rabbitmq: NewServer) -> None:
    server = private_rabbitmq(tls="mutual")
    await publish(server.url, "mail", b"secret")
    without = server.url.partition("&certfile")[0]
    assert without != server.url
    with pytest.raises((aiormq.exceptions.AMQPError, OSError)):
        await publish(without, "mail", b"stranger")


async def test_a_server_without_memory_takes_nothing_until_it_has_some(server: RabbitServer) -> None:
    async with channel_to(server.url) as channel:
        await channel.queue_declare("blocked")
        server.ctl("set_vm_memory_high_watermark", "0")
        waiting = asyncio.create_task(channel.basic_publish(b"one", routing_key="blocked"))
        async with asyncio.timeout(60):
            while "blocked" not in await asyncio.to_thread(server.ctl, "list_connections", "state"):
                assert not waiting.done()
        server.ctl("set_vm_memory_high_watermark", "0.4")
        assert await asyncio.wait_for(waiting, 60)


async def test_connections_can_be_closed_by_the_server(server: RabbitServer) -> None:
    connection = await aiormq.connect(server.url)
    server.ctl("close_all_connections", "enough")
    with pytest.raises(aiormq.exceptions.AMQPError, match="enough"):
        await asyncio.wait_for(asyncio.shield(connection.closing), 60)


def test_commands_tell_what_they_know_and_why_they_fail() -> None:
    server = shared()
    assert server.eval('X = 3, {X * 2, <<"a">>}') == '{6,<<"a">>}'
    assert server.ctl("list_vhosts").split()[:1] == ["name"]
    with pytest.raises(ServerFailed, match="no_such_module"):
        server.eval("no_such_module:f()")
    with pytest.raises(ServerFailed, match="no_such_command"):
        server.ctl("no_such_command")


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


# Says the server's process and folder, then ends as it is told.
PROGRAM = """
import os, signal, sys
from tests.servers.rabbitmq import RabbitServer, need
server = RabbitServer(need()).start()
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
        processes = [first, *first.children(recursive=True)]
        assert len(processes) > 1
        program.stdin.write("\n")
    wait_until(lambda: not any(lives(process) for process in processes), "the end of all processes", 60)
    wait_until(lambda: not Path(folder).exists(), "the end of its folder", 60)


def test_a_closed_server_shows_its_log_with_the_failure() -> None:
    with pytest.raises(RuntimeError) as caught, RabbitServer(need()):
        raise RuntimeError("the test's")
    assert "Server startup complete" in caught.value.__notes__[0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitCluster]:
    with RabbitCluster(need(), tick=8) as made:
        yield made


def test_the_nodes_of_a_cluster_know_each_other(cluster: RabbitCluster) -> None:
    names = {node.name for node in cluster.nodes}
    assert len(names) == 3 and all(node.members() == names for node in cluster.nodes)
    assert [url.rpartition("@")[2] for url in cluster.urls] == [
        f"{address}/" for address in cluster.url.rpartition("@")[2].rstrip("/").split(",")
    ]
    assert all(node.version == cluster.nodes[0].version for node in cluster.nodes)


async def test_a_quorum_queue_gets_another_leader_when_a_node_is_killed(cluster: RabbitCluster) -> None:
    await publish(cluster.urls[0], "elected", b"one", "quorum")
    old = cluster.leader_of("elected")
    assert old is cluster.nodes[0]  # where it was declared
    cluster.kill(old)
    new = cluster.wait_leader("elected", other_than=old)
    await publish(new.url, "elected", b"two", "quorum")
    old.start()
    cluster.wait_whole()
    assert [await taken(old.url, "elected"), await taken(new.url, "elected")] == [b"one", b"two"]


async def test_a_node_that_is_alone_serves_nobody_until_others_are_back(cluster: RabbitCluster) -> None:
    await publish(cluster.urls[0], "alone", b"one", "quorum")
    first, *others = cluster.nodes
    for node in others:
        cluster.kill(node)
    wait_until(lambda: not first.answers(), "the end of its service", 60, first)
    assert first.running()
    cluster.start()
    assert await taken(cluster.urls[1], "alone") == b"one"


async def test_a_cluster_that_was_killed_as_a_whole_comes_back(cluster: RabbitCluster) -> None:
    await publish(cluster.urls[2], "whole", b"one", "quorum")
    for node in cluster.nodes:
        cluster.kill(node)
    with pytest.raises(LookupError, match="whole"):
        cluster.leader_of("whole")
    cluster.start()
    cluster.wait_leader("whole")
    assert await taken(cluster.urls[0], "whole") == b"one"


async def test_a_silent_leader_is_replaced(cluster: RabbitCluster) -> None:
    await publish(cluster.urls[1], "silent", b"one", "quorum")
    old = cluster.leader_of("silent")
    old.pause()
    new = cluster.wait_leader("silent", other_than=old)
    assert await taken(new.url, "silent") == b"one"
    old.kill()
    cluster.start()
