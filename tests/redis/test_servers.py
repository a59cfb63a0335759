"""The private servers do what they say: the faults of the other tests are real."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.servers.binaries import find, need
from tests.servers.fixtures import fresh_url, private, private_server, shared
from tests.servers.redis import Server, ServerFailed, wait_until
from tests.servers.resp import Connection, ReplyError

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
