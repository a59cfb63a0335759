"""A server that will not do: one line that says which one, what it means, and what to do; and never a password."""

from __future__ import annotations

import http.server
import logging
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError
from camora.interfaces.broker import Broker, ConsumerSettings
from camora.interfaces.workflows import START, Mark, Node, WorkflowRecord
from camora_redis import RedisBroker
from camora_redis.errors import ServerError, Unusable, unavailable

from tests.end_to_end.processes import WorkerProcess
from tests.redis.strangers import OldServer, run_command
from tests.servers.binaries import need
from tests.servers.fixtures import fresh_url, private, private_server, shared_cluster, shared_sentinels
from tests.servers.proxy import Proxy
from tests.servers.redis import Server
from tests.servers.sentinel import Sentinels

__all__ = ["private_server"]  # a fixture

KINDS = ["redis-6.2", "redis-7", "redis-8", "valkey-9"]
PASSWORD = "hunter2/@:x"
NewServer = Callable[..., Server]
RULES = (
    "resetkeys ~camora:* ~{camora* resetchannels &camora:* -@all +@read +@write +@connection +@pubsub -@dangerous "
    "+client|id +client|unblock +eval +evalsha +info +time +wait +config|get +memory|usage"
)


def with_protocol(url: str, protocol: int | None, **more: Any) -> str:
    query = "&".join(f"{name}={value}" for name, value in {**more, "protocol": protocol}.items() if value is not None)
    return url + ("&" if "?" in url else "?") + query


async def failure_of(url: str) -> CamoraError:
    """What opening a broker there raises; the same in each version of the protocol."""
    found = []
    for protocol in (None, 2, 3):
        broker = RedisBroker.from_url(with_protocol(url, protocol, timeout=2))
        with pytest.raises((ConfigurationError, BrokerUnavailable)) as caught:
            await broker.open()
        await broker.close()
        found.append(caught.value)
    for error in found:
        text = str(error)
        assert type(error) is type(found[0]), found
        assert text.startswith(("RedisBroker(redis", "redis+")), text
        assert "\n" not in text and "Traceback" not in text and "0x" not in text and "<redis" not in text, text
        assert PASSWORD not in text and "hunter2" not in text, text
    return found[-1]


async def opens(url: str, **settings: Any) -> None:
    for protocol in (None, 2, 3):
        broker = RedisBroker.from_url(with_protocol(url, protocol, **settings))
        await broker.open()
        await broker.close()


class Silent(http.server.BaseHTTPRequestHandler):
    """It logs nothing."""

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def web_server() -> Iterator[int]:
    """A port that speaks HTTP."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Silent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


async def test_an_empty_server_is_fine() -> None:
    await opens(fresh_url())


# Passwords and permissions


async def test_a_missing_password(private_server: NewServer) -> None:
    server = private_server(password=PASSWORD)
    error = await failure_of(f"redis://127.0.0.1:{server.port}/0")
    assert isinstance(error, ConfigurationError)
    assert "it asks for a password: in the URL it stands before the host" in str(error)
    await opens(server.url)


async def test_a_wrong_password(private_server: NewServer) -> None:
    server = private_server(password="right")
    error = await failure_of(server.url_of(password=PASSWORD))
    assert isinstance(error, ConfigurationError)
    assert "user name or password are wrong" in str(error)


async def test_a_wrong_user(private_server: NewServer) -> None:
    server = private_server(users=["ann on >right ~* &* +@all"])
    error = await failure_of(server.url_of(user="bob", password=PASSWORD))
    assert isinstance(error, ConfigurationError)
    assert "user name or password are wrong" in str(error)


async def test_a_user_that_is_switched_off(private_server: NewServer) -> None:
    server = private_server(users=[f"ann off >{PASSWORD} ~* &* +@all"])
    error = await failure_of(server.url_of(user="ann", password=PASSWORD))
    assert "switched off" in str(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rules", "refused", "fix"),
    [
        ("~* +@all -xadd -zadd", "XADD, ZADD", "+xadd +zadd"),
        ("~* +@all -evalsha", "EVAL, EVALSHA", "+eval +evalsha"),
        ("~* +@all -client", "CLIENT ID, CLIENT UNBLOCK", "+client|id +client|unblock"),
        ("~* +@all -wait -del", "DEL, WAIT", "+del +wait"),
        ("~camora:* +@all", "use all keys that begin with camora:, {camora", "~camora:* ~{camora*"),
        ("~other:* +@all", "use all keys that begin with camora:, {camora", "~camora:* ~{camora*"),
        ("~* +@all resetchannels &other:*", "use channels that begin with camora:", "&camora:*"),
    ],
    ids=["commands", "scripts", "client", "more commands", "helper keys", "keys", "channels"],
)
async def test_a_permission_is_missing_and_what_is_said_grants_it(
    private_server: NewServer, kind: str, rules: str, refused: str, fix: str
) -> None:
    rules = rules if "channels" in rules else f"{rules} allchannels"
    server = private_server(kind, users=[f"ann on >secret {rules}"])
    url = server.url_of(user="ann", password="secret")
    error = await failure_of(url)
    assert isinstance(error, ConfigurationError)
    assert "user 'ann' may not " in str(error)
    assert refused in str(error)
    line = str(error).partition("allow it: ")[2].partition(" (")[0]
    assert line == f"ACL SETUSER ann {fix}"
    server.cli(*line.split())
    await opens(url)


def test_every_command_of_every_script_is_tried() -> None:
    folder = resources.files("camora_redis") / "scripts"
    texts = {one.name: one.read_text() for one in folder.iterdir() if one.name.endswith(".lua")}
    used = {
        name
        for script, text in texts.items()
        if script != "permitted.lua"
        for name in re.findall(r"""(?:redis\.p?call\(|grouped\([^,]+, )'([A-Z]+)'""", text)
    }
    tried = set(re.findall(r"""(?:\{|try\()'([A-Z]+)'""", texts["permitted.lua"]))
    assert {"XADD", "XACK", "HSET", "XREADGROUP"} <= used
    assert used - tried == set(), "add a harmless call of each to permitted.lua"


@pytest.mark.parametrize("kind", KINDS)
async def test_all_that_is_tried_changes_nothing(private_server: NewServer, kind: str) -> None:
    server = private_server(kind)
    await opens(server.url)
    assert server.cli("DBSIZE") == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_the_documented_permissions_are_enough_for_all_there_is(private_server: NewServer, kind: str) -> None:
    server = private_server(kind, users=[f"camora on >secret {RULES}"])
    await _use_everything(server.url_of(user="camora", password="secret"))


def test_the_documented_line_is_the_tested_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
    assert f"ACL SETUSER camora on >PASSWORD {RULES}\n" in page
    assert "For Sentinel add `+role`, for a cluster `+cluster|slots +cluster|info`" in page


async def test_the_documented_permissions_are_enough_in_a_cluster_and_with_sentinels() -> None:
    cluster, sentinels = shared_cluster(), shared_sentinels()
    for url, nodes, more in (
        (cluster.url, cluster.nodes, "+cluster|slots +cluster|info"),
        (sentinels.url, sentinels.nodes, "+role"),
    ):
        for node in nodes:
            node.cli("ACL", "SETUSER", "camora", "on", ">secret", *RULES.split(), *more.split())
        try:
            await _use_everything(url.replace("://", "://camora:secret@"))
        finally:
            for node in nodes:
                node.cli("ACL", "DELUSER", "camora")
    cluster.empty()
    sentinels.empty()


async def test_sentinels_with_a_password_of_their_own() -> None:
    with Sentinels(need("redis")) as sentinels:
        for one in sentinels.sentinels:
            one.cli("ACL", "SETUSER", "ann", "on", ">hunter2", "~*", "&*", "+@all")
            one.cli("ACL", "SETUSER", "default", "off")
        error = await failure_of(sentinels.url)
        assert isinstance(error, ConfigurationError)
        assert "the Sentinels ask for a password of their own, or refuse ours: set sentinel_password" in str(error)
        error = await failure_of(f"{sentinels.url}?sentinel_username=ann&sentinel_password=hunter2x")
        assert isinstance(error, ConfigurationError)
        await opens(sentinels.url, sentinel_username="ann", sentinel_password="hunter2")


async def _use_everything(url: str) -> None:
    app = Camora(url, results=url)

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="fail")
    async def fail() -> None:
        raise OSError("no")

    async with app:
        async with app.worker():
            assert await (await add.dispatch(1, 2)).result(timeout=60) == 3
            failed = await fail.dispatch()
            with pytest.raises(CamoraError, match="no"):
                await failed.result(timeout=60)
            assert await (await add.options(delay=0.05, priority=3, key="k").dispatch(2, 2)).result(timeout=60) == 4
        queues, letters = app.broker.queues, app.broker.dead_letters
        assert [letter.id for letter in await letters.list()] == [failed.id]
        await queues.pause("default")
        assert await queues.paused() == ["default"]
        await queues.pause("default", paused=False)
        await letters.requeue(failed.id)
        assert await queues.reschedule(failed.id, 1)
        assert await queues.purge("default") == 1
    await _use_companions(app.broker)


async def _use_companions(broker: Broker) -> None:
    graphs, journal = broker.own_workflows(), broker.own_journal()
    assert graphs is not None
    assert journal is not None
    await graphs.open()
    await journal.open()
    assert await graphs.create(WorkflowRecord(id="w", created=1))
    assert await graphs.add("w", [Node(index=0, feeds=(1,), gate=START), Node(index=1)], 2)
    assert await graphs.start("w", b"", 3)
    assert [node.index for node in await graphs.nodes("w", gate=START)] == [0]
    await graphs.passed("w", START, 0, 4)
    await graphs.end([Mark(workflow="w", index=index, status="succeeded") for index in (0, 1)], 5)
    assert await graphs.finish("w", "succeeded", 60, 6)
    assert await graphs.reopen("w", {1: 0}, 7)
    assert [node and node.run for node in await graphs.read("w", [0, 1])] == [0, 1]
    assert [found.open for found in await graphs.list()] == [1]
    assert await graphs.delete(["w"]) == 1
    assert await journal.claim("job", 1, 60) == {}
    assert await journal.write("job", 1, "step", b"", 60) == b""
    assert await journal.post("job", "ping", b"", 60, "one") == 0
    assert await journal.read("job") == {"step": b"", "ping/0": b""}
    assert await journal.forget(["job"]) == 1
    await journal.close()
    await graphs.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_user_that_may_not_ask_what_server_it_is(private_server: NewServer, kind: str) -> None:
    """INFO and HELLO only say more: without them all works, and nothing is said."""
    server = private_server(
        kind, users=["ann on >secret ~* &* +@all -info -config", "bob on >secret ~* &* +@all -info -config -hello"]
    )
    await opens(server.url_of(user="ann", password="secret"))
    broker = RedisBroker.from_url(server.url_of(user="bob", password="secret") + "?protocol=2")
    await broker.open()
    await broker.close()


async def test_a_user_that_may_not_ask_learns_from_hello_that_it_is_a_replica(private_server: NewServer) -> None:
    user = "ann on >secret ~* &* +@all -info"
    server = private_server(config=["replicaof 127.0.0.1 1"], users=[user])
    error = await failure_of(server.url_of(user="ann", password="secret"))
    assert isinstance(error, BrokerUnavailable)
    assert "READONLY" in str(error)


# Not there, not yet, and somebody else


async def test_nobody_listens() -> None:
    with private() as server:
        url = server.url
    error = await failure_of(url)
    assert isinstance(error, BrokerUnavailable)
    assert "nothing listens there: start the server, or correct host and port" in str(error)


async def test_a_host_that_nobody_knows() -> None:
    error = await failure_of("redis://nowhere.invalid:6379/0")
    assert isinstance(error, BrokerUnavailable)
    assert "the name of the host is not known" in str(error)


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    error = await failure_of(f"redis+unix://{tmp_path}/redis.sock")
    assert isinstance(error, BrokerUnavailable)
    assert "there is no such socket: start the server, or correct the path" in str(error)


async def test_a_server_that_takes_connections_and_never_answers(private_server: NewServer) -> None:
    server = private_server()
    with Proxy((server.host, server.port)) as proxy:
        proxy.hold()
        error = await failure_of(f"redis://127.0.0.1:{proxy.port}/0")
        assert isinstance(error, BrokerUnavailable)
        assert "no answer" in str(error)


async def test_a_web_server() -> None:
    with web_server() as port:
        error = await failure_of(f"redis://127.0.0.1:{port}/0")
    assert isinstance(error, ConfigurationError)
    assert "what listens there is no Redis and no Valkey: correct host and port" in str(error)


@pytest.mark.parametrize("version", ["3.2.13", "5.0.14", "6.0.20"])
@pytest.mark.parametrize("hello", [True, False], ids=["with HELLO", "without HELLO"])
async def test_a_server_that_is_too_old(version: str, hello: bool) -> None:
    with OldServer(version, hello=hello) as server:
        error = await failure_of(f"redis://127.0.0.1:{server.port}/0")
    assert isinstance(error, ConfigurationError)
    assert "too old" in str(error)
    assert "Redis 6.2 or later" in str(error)


async def test_a_server_that_is_old_enough() -> None:
    with OldServer("6.2.0", hello=True) as server:
        broker = RedisBroker.from_url(f"redis://127.0.0.1:{server.port}/0")
        await broker.open()
        await broker.close()


async def test_a_server_that_is_loading(private_server: NewServer) -> None:
    slowly = ["key-load-delay 20000", "loading-process-events-interval-bytes 1024"]
    server = private_server(config=slowly)
    for number in range(100):
        server.cli("SET", f"key:{number}", "x" * 2000)
    server.cli("SAVE")
    server.kill()
    server.launch()
    broker = RedisBroker.from_url(server.url)
    seen = set()
    while True:
        try:
            await broker.open()
        except BrokerUnavailable as error:
            seen.add("loading" if "it is loading its data into memory" in str(error) else "starting")
        else:
            break
    await broker.close()
    assert "loading" in seen


async def test_a_server_that_is_full_can_be_opened(private_server: NewServer) -> None:
    server = private_server()
    server.cli("CONFIG", "SET", "maxmemory", 1)
    await opens(server.url)


async def test_a_database_that_is_not_there(private_server: NewServer) -> None:
    server = private_server(databases=2)
    error = await failure_of(server.url_of(7))
    assert isinstance(error, ConfigurationError)
    assert "it has no database of this number" in str(error)
    await opens(server.url_of(1))


# TLS


async def test_tls_against_a_plain_port_and_the_reverse(private_server: NewServer) -> None:
    plain, secured = private_server(), private_server("redis-7", tls=True)
    error = await failure_of(f"rediss://127.0.0.1:{plain.port}/0")
    assert isinstance(error, ConfigurationError)
    assert "it does not speak TLS at this port: write redis://" in str(error)
    error = await failure_of(f"redis://127.0.0.1:{secured.port}/0")
    assert isinstance(error, ConfigurationError)
    assert "it speaks TLS at this port: write rediss://" in str(error)


async def test_certificates(private_server: NewServer) -> None:
    server = private_server("redis-7", tls="mutual")
    assert server.certificates is not None
    authority, mine = server.certificates.authority, server.certificates
    bare = f"rediss://127.0.0.1:{server.port}/0"
    ours = f"ssl_certfile={mine.certificate}&ssl_keyfile={mine.key}"
    for query, words in (
        (ours, "its certificate is signed by nobody we trust: name the authority's by ssl_ca_certs=FILE"),
        (f"ssl_ca_certs={authority}", "it asks for our certificate: name it by ssl_certfile=FILE&ssl_keyfile=FILE"),
        (f"ssl_ca_certs=/nowhere/ca.pem&{ours}", "ssl_ca_certs = '/nowhere/ca.pem': there is no such file"),
    ):
        error = await failure_of(f"{bare}?{query}")
        assert isinstance(error, ConfigurationError)
        assert words in str(error)
    await opens(f"{bare}?ssl_ca_certs={authority}&{ours}")
    await opens(f"{bare}?{ours}&ssl_cert_reqs=none&ssl_check_hostname=false")


# Replicas, Sentinels, clusters


async def test_a_replica(private_server: NewServer) -> None:
    master = private_server()
    replica = private_server(config=[f"replicaof {master.host} {master.port}"])
    error = await failure_of(replica.url)
    assert isinstance(error, BrokerUnavailable)  # it may become the master
    assert f"it is a replica of {master.host}:{master.port}, and takes no writes (READONLY)" in str(error)
    replica.cli("REPLICAOF", "NO", "ONE")
    await opens(replica.url)


async def test_sentinels() -> None:
    sentinels = shared_sentinels()
    error = await failure_of(f"redis://127.0.0.1:{sentinels.sentinels[0].port}/0")
    assert isinstance(error, ConfigurationError)
    assert "it is a Sentinel: write redis+sentinel://HOST:PORT/SERVICE/DB" in str(error)
    error = await failure_of(sentinels.url.replace(f"/{sentinels.service}/", "/other/"))
    assert isinstance(error, ConfigurationError)
    assert "no service 'other'" in str(error)
    error = await failure_of("redis+sentinel://127.0.0.1:1,127.0.0.1:2/camora/0")
    assert isinstance(error, BrokerUnavailable)
    error = await failure_of(f"redis+sentinel://{fresh_url().partition('://')[2].partition('/')[0]}/camora/0")
    assert isinstance(error, ConfigurationError)
    assert "it is no Sentinel" in str(error)


async def test_clusters() -> None:
    node = shared_cluster().masters[0]
    error = await failure_of(f"redis://127.0.0.1:{node.port}/0")
    assert isinstance(error, ConfigurationError)
    assert "redis+cluster://" in str(error)
    error = await failure_of(fresh_url().replace("redis://", "redis+cluster://").rpartition("/")[0])
    assert isinstance(error, ConfigurationError)
    assert "redis://" in str(error)


# What servers say later


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("LOADING Redis is loading the dataset in memory", BrokerUnavailable, "it is loading its data"),
        ("READONLY You can't write against a read only replica.", BrokerUnavailable, "it is a replica"),
        ("MASTERDOWN Link with MASTER is down", BrokerUnavailable, "whose master is gone"),
        ("CLUSTERDOWN Hash slot not served", BrokerUnavailable, "does not cover all slots"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", BrokerUnavailable, "keys are moving"),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            BrokerUnavailable,
            "it is full: raise its maxmemory",
        ),
        ("MISCONF Redis is configured to save RDB snapshots", BrokerUnavailable, "it cannot write to its disk"),
        ("NOREPLICAS Not enough good replicas to write.", BrokerUnavailable, "min-replicas-to-write"),
        ("BUSY Redis is busy running a script.", BrokerUnavailable, "SCRIPT KILL"),
        ("ERR max number of clients reached", BrokerUnavailable, "raise its maxclients"),
        ("ERR something new", BrokerUnavailable, "broker(x): ERR something new"),
        ("NOAUTH Authentication required.", Unusable, "it asks for a password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", Unusable, "user name or password are wrong"),
        ("NOPERM User ann has no permissions to run the 'xadd' command", Unusable, "its ACL does not let"),
        ("ERR The user executing the script can't run this command or subcommand", Unusable, "its ACL does not let"),
        ("ERR ACL failure in script: No permissions to access a key", Unusable, "its ACL does not let"),
    ],
)
def test_what_servers_say_is_told_in_words(said: str, kind: type[Exception], words: str) -> None:
    error = unavailable("broker(x)", ServerError(said))
    assert type(error) is kind
    assert str(error).startswith("broker(x): ")
    assert words in str(error)
    assert said.rstrip(".") in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_what_is_told_is_one_short_line() -> None:
    text = str(unavailable("broker(x)", ServerError("ERR " + "line\n" * 500)))
    assert "\n" not in text
    assert len(text) < 300


# Warnings of what works, and may end badly


async def _warned(url: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    broker = RedisBroker.from_url(url)
    await broker.open()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "camora.redis"):
        for queue in ("a", "b"):
            consumer = await broker.consumer(ConsumerSettings(queues=(queue,), worker="w", lease=30.0))
            await consumer.close()
    await broker.close()
    return [record.getMessage() for record in caplog.records if record.name == "camora.redis"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_is_warned_of_eviction_and_of_nothing_kept(
    private_server: NewServer, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    server = private_server(kind, maxmemory="100mb", maxmemory_policy="allkeys-lru")
    eviction, nothing_kept = await _warned(server.url, caplog)
    assert "it evicts keys when it is full (maxmemory-policy allkeys-lru)" in eviction
    assert "a restart loses all jobs" in nothing_kept
    server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.cli("CONFIG", "SET", "appendonly", "yes")
    assert await _warned(server.url, caplog) == []
    server.cli("CONFIG", "SET", "appendonly", "no")
    server.cli("CONFIG", "SET", "save", "3600 1")
    assert await _warned(server.url, caplog) == []


async def test_without_a_limit_nothing_is_evicted(private_server: NewServer, caplog: pytest.LogCaptureFixture) -> None:
    server = private_server(maxmemory_policy="allkeys-lru", appendonly=True)
    assert await _warned(server.url, caplog) == []


async def test_nothing_is_said_where_nobody_may_look(
    private_server: NewServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_server(users=["ann on >s ~* &* +@all -info", "bob on >s ~* &* +@all -config"])
    for user in ("ann", "bob"):
        assert await _warned(server.url_of(user=user, password="s"), caplog) == []


# In a terminal


APP = """
import os
from camora import Camora
from camora.settings import AppSettings
app = Camora(os.environ["SHOP_BROKER"], settings=AppSettings(dispatch_timeout=1.0))

@app.task(name="add")
async def add(x: int, y: int) -> int:
    return x + y
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(APP)
    return tmp_path


def test_what_no_waiting_mends_ends_commands_with_2(private_server: NewServer, folder: Path) -> None:
    url = private_server(password="right").url_of(password=PASSWORD)
    for command in (("dispatch", "add", "1", "2"), ("worker",)):
        done = run_command(folder, *command, SHOP_BROKER=url)
        assert done.returncode == 2, done
        assert "user name or password are wrong" in done.stderr
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr + done.stdout


def test_what_may_pass_is_waited_for(folder: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(private())
        server.kill()
        done = run_command(folder, "dispatch", "add", "1", "2", SHOP_BROKER=server.url)
        assert done.returncode == 1, done
        assert "nothing listens there" in done.stderr
        assert "Traceback" not in done.stderr
        worker = TasksWorker(folder, server.url)
        stack.callback(worker.destroy)
        worker.wait_for("nothing listens there")
        server.start()
        worker.ready()
        worker.wait_for("it keeps nothing on its disk: a restart loses all jobs and results")


class TasksWorker(WorkerProcess):
    command = ("worker", "tasks:app")

    def __init__(self, folder: Path, broker: str) -> None:
        self.cwd = folder
        super().__init__(folder, broker)
