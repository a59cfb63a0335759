"""The private servers do what they say: the faults of the other tests are real."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers.binaries import find, need
from tests.servers.cluster import Cluster
from tests.servers.fixtures import fresh_url, private, private_server, shared, shared_cluster, shared_sentinels
from tests.servers.proxy import Proxy
from tests.servers.redis import Server, ServerFailed, wait_until
from tests.servers.resp import Connection, ReplyError
from tests.servers.sentinel import Sentinels

__all__ = ["private_server"]  # a fixture

KINDS = ["redis-6.2", "redis-7", "redis-8", "valkey-9"]
NewServer = Callable[..., Server]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_is_of_its_kind(private_server: NewServer, kind: str) -> None:
    server = private_server(kind)
    product, _, version = kind.partition("-")
    assert server.info("server")[f"{product}_version"].startswith(version)


@pytest.mark.parametrize("kind", KINDS)
def test_an_append_only_server_has_its_data_again_after_a_kill(private_server: NewServer, kind: str) -> None:
    server = private_server(kind, appendonly=True, appendfsync="always")
    port, pid = server.port, server.pid
    server.cli("SET", "kept", "yes")
    server.kill()
    with pytest.raises(OSError):
        server.cli("PING")
    server.start()
    assert (server.port, server.cli("GET", "kept")) == (port, "yes")
    assert server.pid != pid


def test_a_server_without_persistence_is_empty_after_a_kill(private_server: NewServer) -> None:
    server = private_server()
    server.cli("SET", "lost", "yes")
    server.kill()
    assert server.start().cli("DBSIZE") == 0


def test_a_stopped_server_ends_in_order(private_server: NewServer) -> None:
    server = private_server()
    server.stop()
    assert "ready to exit" in server.log and not server.running()


def test_a_paused_server_is_silent_and_goes_on(private_server: NewServer) -> None:
    server = private_server()
    with server.connection(timeout=0.2) as connection:
        connection.call("SET", "a", 1)
        server.pause()
        connection.send("GET", "a")
        with pytest.raises(TimeoutError):
            connection.receive()
        server.resume()
    assert server.cli("GET", "a") == "1"


def test_a_server_that_cannot_start_shows_its_log() -> None:
    with pytest.raises(ServerFailed, match="no-such-setting"):
        Server(need("redis"), config=["no-such-setting yes"]).start()


def test_the_settings_arrive(private_server: NewServer) -> None:
    server = private_server(maxmemory="50mb", maxmemory_policy="allkeys-lru", databases=3, config=["hz 50"])
    names = ["maxmemory", "maxmemory-policy", "databases", "hz", "appendonly"]
    said = {name: server.cli("CONFIG", "GET", name)[1] for name in names}
    assert said == dict(zip(names, ["52428800", "allkeys-lru", "3", "50", "no"], strict=True))


def test_a_password_keeps_strangers_out(private_server: NewServer) -> None:
    server = private_server(password="right one")
    with Connection((server.host, server.port)) as stranger, pytest.raises(ReplyError, match="NOAUTH"):
        stranger.call("GET", "a")
    with pytest.raises(ReplyError, match="WRONGPASS"):
        server.connection(password="wrong")
    assert server.cli("PING") == "PONG"
    with Connection.to(server.url) as connection:
        assert connection.call("PING") == "PONG"


def test_a_user_may_do_what_the_rules_say(private_server: NewServer) -> None:
    server = private_server(users=["ann on >secret ~mine:* +@all -@admin"])
    with server.connection(user="ann", password="secret") as ann:
        ann.call("SET", "mine:a", 1)
        with pytest.raises(ReplyError, match="NOPERM"):
            ann.call("SET", "yours:a", 1)
        with pytest.raises(ReplyError, match="NOPERM"):
            ann.call("CONFIG", "GET", "port")
    with pytest.raises(ReplyError, match="WRONGPASS"):
        server.connection(user="ann", password="other")


def test_the_default_user_may_be_off(private_server: NewServer) -> None:
    server = private_server(users=["default off", "ann on >secret ~* +@all"])
    with pytest.raises(ReplyError, match="NOAUTH"):
        server.cli("PING")
    with Connection.to(server.url_of(2, user="ann", password="secret")) as ann:
        assert ann.call("CLIENT", "INFO").find(" db=2 ") > 0


def test_a_unix_socket_reaches_the_same_server(private_server: NewServer) -> None:
    server = private_server(unix_socket=True)
    server.cli("SET", "a", 1)
    with Connection(server.socket) as connection:
        assert connection.call("GET", "a") == "1"


def test_tls_refuses_plain_text_and_is_trusted_by_its_authority_alone(private_server: NewServer) -> None:
    server = private_server(tls=True)
    assert server.cli("PING") == "PONG"
    with contextlib.closing(Connection((server.host, server.port))) as plain, pytest.raises((OSError, ReplyError)):
        plain.call("PING")
    with pytest.raises(ssl.SSLCertVerificationError):
        Connection((server.host, server.port), tls=ssl.create_default_context())


def test_mutual_tls_wants_a_certificate_of_the_client(private_server: NewServer) -> None:
    server = private_server(tls="mutual")
    assert server.cli("PING") == "PONG"
    assert server.certificates is not None
    nameless = ssl.create_default_context(cafile=str(server.certificates.authority))
    with pytest.raises(OSError), Connection((server.host, server.port), tls=nameless) as connection:
        connection.call("PING")


def test_the_shared_server_is_one_and_its_databases_are_many() -> None:
    assert shared("redis") is shared("redis")
    first, second = fresh_url("redis"), fresh_url("redis")
    with Connection.to(first) as connection:
        connection.call("SET", "a", 1)
    with Connection.to(second) as connection:
        assert connection.call("DBSIZE") == 0


def test_a_given_server_must_be_empty(private_server: NewServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.servers import fixtures

    server = private_server()
    monkeypatch.setenv("CAMORA_TEST_REDIS_URL", server.url)
    server.cli("SET", "somebodys", 1)
    with pytest.raises(AssertionError, match="holds 1 keys"):
        fixtures._shared.__wrapped__("redis")
    server.cli("FLUSHALL")
    given = fixtures._shared.__wrapped__("redis")
    assert given.url == server.url and given.cli("DBSIZE") == 0


def test_a_missing_server_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no redis-1\.0 server"):
        need("redis-1.0")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no redis-1\.0 server"):
        need("redis-1.0")
    with pytest.raises(ValueError, match="no such server: 'memcached'"):
        find("memcached")


# Says the server's process and folder, then ends as it is told.
PROGRAM = """
import os, signal, sys
from tests.servers.binaries import find
from tests.servers.redis import Server
server = Server(find("redis")).start()
if "paused" in sys.argv:
    server.pause()
print(server.pid, server.folder, flush=True)
if "killed" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", [["killed"], ["returns"], ["killed", "paused"]], ids="-".join)
def test_no_server_outlives_its_test_process(how: list[str]) -> None:
    need("redis")
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, *how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    pid, _, folder = program.stdout.strip().partition(" ")
    assert pid, program.stderr
    # The name guards against another process of the same number.
    wait_until(lambda: not _lives(int(pid)), "the end of the server", 20)
    wait_until(lambda: not Path(folder).exists(), "the end of its folder", 20)


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "redis" in process.name()
    return False


def test_a_closed_server_shows_its_log_with_the_failure() -> None:
    with pytest.raises(RuntimeError) as caught, private("redis"):
        raise RuntimeError("the test failed")
    assert "the end of the log of the server" in "".join(caught.value.__notes__)


# Sentinels and Clusters


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_sentinels_make_a_replica_the_master_when_it_dies(kind: str) -> None:
    with Sentinels(need(kind), password="secret one") as sentinels:
        old = sentinels.master
        assert len(sentinels.replicas) == 2
        with old.connection() as connection:
            connection.call("SET", "kept", "yes")
            assert connection.call("WAIT", 2, 5000) == 2
        assert sentinels.kill_master() is old
        new = sentinels.wait_failed_over(old)
        assert new is not old and new.cli("GET", "kept") == "yes"
        new.cli("SET", "more", "yes")
        old.start()
        sentinels.wait_settled()
        assert (old.info("replication")["role"], old.cli("GET", "more")) == ("slave", "yes")


def test_sentinels_fail_over_when_told_to() -> None:
    sentinels = shared_sentinels("redis")
    sentinels.master.cli("SET", "kept", "yes")
    for _ in range(2):
        old = sentinels.master
        new = sentinels.failover()
        assert new is not old and new.cli("GET", "kept") == "yes"
        sentinels.wait_settled()
    sentinels.empty()
    assert sentinels.master.cli("DBSIZE") == 0


def test_the_url_of_sentinels_names_them_all() -> None:
    sentinels = shared_sentinels("redis")
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels.sentinels)
    assert sentinels.url_of(3) == f"redis+sentinel://{hosts}/camora/3"


BOTH = "return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}"


@pytest.mark.parametrize("kind", ["redis-6.2", "redis-7", "redis-8", "valkey-9"])
def test_a_slot_moves_under_a_script_of_two_keys(kind: str) -> None:
    cluster = shared_cluster(kind)
    cluster.empty()
    source = cluster.node_of("{q}")
    target = next(node for node in cluster.masters if node is not source)

    def run(node: Server, *, asking: bool = False) -> Any:
        with node.connection() as connection:
            if asking:
                connection.call("ASKING")
            return connection.call("EVAL", BOTH, 2, "{q}a", "{q}b")

    for name in "ab":
        source.cli("SET", f"{{q}}{name}", name)
    migration = cluster.migration("{q}", target)
    migration.begin()
    assert run(source) == ["a", "b"]
    migration.move_keys("{q}a")
    for node, asking in ((source, False), (target, True)):
        with pytest.raises(ReplyError, match="TRYAGAIN" if asking or kind != "redis-6.2" else "ASK"):
            run(node, asking=asking)
    assert migration.move() == ["{q}b"] and migration.move() == []
    with pytest.raises(ReplyError, match=rf"ASK {migration.slot} 127\.0\.0\.1:{target.port}"):
        run(source)
    assert run(target, asking=True) == ["a", "b"]
    migration.finish()
    assert cluster.node_of("{q}") is target and run(target) == ["a", "b"]
    for node in cluster.masters:
        if node is not target:
            with pytest.raises(ReplyError, match=rf"MOVED {migration.slot} 127\.0\.0\.1:{target.port}"):
                run(node)
    cluster.move_slot("{q}", source)
    assert cluster.cli("{q}", "DBSIZE") == 2 and cluster.node_of("{q}") is source


def test_a_cluster_without_a_master_refuses_or_goes_on_with_the_rest() -> None:
    with Cluster(need("redis"), full_coverage=False) as cluster:
        dead = cluster.node_of("{a}")
        other = next(node for node in cluster.masters if node is not dead)
        key = next(f"{{{n}}}" for n in range(100) if cluster.node_of(f"{{{n}}}") is other)
        cluster.kill(dead)
        with pytest.raises(LookupError):
            cluster.node_of("{a}")
        assert cluster.cli(key, "SET", key, 1) == "OK"
        dead.start()
        cluster.wait_ok()
        assert cluster.node_of("{a}") is dead


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_a_replica_takes_over_from_a_killed_master(kind: str) -> None:
    with Cluster(need(kind), replicas=1, password="secret") as cluster:
        old = cluster.node_of("{a}")
        with old.connection() as connection:
            connection.call("SET", "{a}", "kept")
            assert connection.call("WAIT", 1, 5000) == 1
        cluster.kill(old)
        new = cluster.wait_taken_over(old, "{a}")
        assert new is not old and new.cli("GET", "{a}") == "kept"
        with pytest.raises(AssertionError, match="the server is not running"):
            cluster.kill(old)
        old.start()
        cluster.wait_ok()
        assert old.info("replication")["role"] == "slave"


# The proxy


@pytest.fixture
def server(private_server: NewServer) -> Server:
    return private_server()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy((server.host, server.port)) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Callable[[], Connection]]:
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Connection((proxy.host, proxy.port), timeout=0.5))


Connect = Callable[[], Connection]


def through(proxy: Proxy, count: int) -> None:
    wait_until(lambda: proxy.connections == count, f"{count} connections", 10)


def test_the_proxy_passes_everything_in_order(connect: Connect) -> None:
    connection = connect()
    value = "x" * 20_000_000
    connection.send("SET", "big", value)
    for _ in range(1000):
        connection.send("INCR", "n")
    assert connection.receive() == "OK"
    assert [connection.receive() for _ in range(1000)] == list(range(1, 1001))
    assert connection.call("GET", "big") == value


def test_the_ends_of_connections_pass(proxy: Proxy, server: Server, connect: Connect) -> None:
    connection = connect()
    connection.call("PING")
    through(proxy, 1)
    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(ConnectionError):
        connection.call("PING")
    through(proxy, 0)


def test_cut_resets_what_is_open_and_takes_new_ones(proxy: Proxy, connect: Connect) -> None:
    first, second = connect(), connect()
    for connection in (first, second):
        connection.call("PING")
    proxy.cut()
    for connection in (first, second):
        with pytest.raises(ConnectionResetError):
            connection.receive()
    assert proxy.connections == 0
    assert connect().call("PING") == "PONG"


def test_refuse_takes_no_new_connection_until_healed(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    connection.call("PING")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert connection.call("PING") == "PONG"
    proxy.heal()
    assert connect().call("PING") == "PONG" and connection.call("PING") == "PONG"


def test_hold_swallows_both_directions_and_ends(proxy: Proxy, server: Server, connect: Connect) -> None:
    asking, waiting = connect(), connect()
    asking.call("PING")
    waiting.call("PING")
    proxy.hold()
    asking.send("SET", "a", 1)
    new = connect()  # is taken, and hears nothing
    new.send("SET", "b", 1)
    for connection in (asking, new):
        with pytest.raises(TimeoutError):
            connection.receive()
    assert server.cli("DBSIZE") == 0
    server.kill()
    with pytest.raises(TimeoutError):
        waiting.receive()
    server.start()
    proxy.heal()
    for connection in (asking, new, waiting):
        with pytest.raises(ConnectionResetError):
            connection.receive()
    assert connect().call("DBSIZE") == 0


def test_drop_replies_lets_the_server_do_what_the_client_never_hears_of(
    proxy: Proxy, server: Server, connect: Connect
) -> None:
    connection = connect()
    connection.call("PING")
    proxy.drop_replies()
    connection.send("SET", "a", 1)
    with pytest.raises(TimeoutError):
        connection.receive()
    wait_until(lambda: server.cli("GET", "a") == "1", "the write", 10)
    proxy.heal()
    assert proxy.connections == 0
    assert connect().call("GET", "a") == "1"


@pytest.mark.parametrize("pieces", [1, 2])
def test_drop_next_reply_leaves_the_client_in_doubt(
    proxy: Proxy, server: Server, connect: Connect, pieces: int
) -> None:
    bystander, connection = connect(), connect()
    dropped = proxy.drop_next_reply(to=b"INCR")
    assert bystander.call("PING") == "PONG" and connection.call("PING") == "PONG"
    assert not dropped.is_set()
    whole = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"
    if pieces == 1:
        connection._socket.sendall(whole)
    else:
        connection._socket.sendall(whole[:10])
        bystander.call("PING")  # the first piece has been passed by then
        connection._socket.sendall(whole[10:])
    with pytest.raises(ConnectionResetError):
        connection.receive()
    assert dropped.wait(60)
    assert server.cli("GET", "n") == "1"
    assert bystander.call("INCR", "n") == 2  # once only


def test_a_trap_outlives_a_connection_that_ended_before_the_answer(
    proxy: Proxy, server: Server, connect: Connect
) -> None:
    blocked = connect()
    dropped = proxy.drop_next_reply(to=b"BLPOP")
    blocked.send("BLPOP", "list", 0)
    wait_until(lambda: "cmd=blpop" in server.cli("CLIENT", "LIST"), "the blocked client", 10)
    blocked.close()
    through(proxy, 0)
    again = connect()
    again.send("BLPOP", "list", 0)
    wait_until(lambda: "cmd=blpop" in server.cli("CLIENT", "LIST"), "the blocked client", 10)
    server.cli("RPUSH", "list", "a")
    with pytest.raises(ConnectionResetError):
        again.receive()
    assert dropped.wait(60) and server.cli("LLEN", "list") == 0


def test_delay_is_each_way_and_keeps_the_order(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    connection.call("PING")
    proxy.delay(0.1)
    began = time.monotonic()
    for _ in range(100):
        connection.send("INCR", "n")
    assert connection.receive() == 1
    assert time.monotonic() - began >= 0.2
    proxy.delay(0)  # what comes later does not overtake
    for _ in range(100):
        connection.send("INCR", "n")
    assert [connection.receive() for _ in range(199)] == list(range(2, 201))
    proxy.heal()
    assert connection.call("INCR", "n") == 201


def test_a_server_that_is_not_there_resets(proxy: Proxy, server: Server, connect: Connect) -> None:
    server.kill()
    with pytest.raises(ConnectionError):
        connect().call("PING")
    server.start()
    assert connect().call("PING") == "PONG"


def test_an_ended_proxy_refuses_and_leaves_no_thread(server: Server) -> None:
    with Proxy((server.host, server.port)) as proxy, Connection((proxy.host, proxy.port)) as connection:
        connection.call("PING")
        name = f"proxy-{proxy.port}"
        assert name in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        Connection((proxy.host, proxy.port))
    assert name not in [thread.name for thread in threading.enumerate()]
