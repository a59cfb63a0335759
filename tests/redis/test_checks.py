"""`camora doctor` on Redis and Valkey: what is wrong is found, named, and its fix works. It changes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.interfaces import Check, CheckResult
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora_redis import RedisBroker, RedisSettings
from camora_redis import examining as examining_module
from camora_redis.checks import checks

from tests.redis.strangers import OldServer, run_command
from tests.servers.fixtures import fresh_url, private_server, shared_cluster, shared_sentinels
from tests.servers.redis import Server, wait_until

__all__ = ["private_server"]  # a fixture

CHECKS: dict[str, Check] = {check.name.removeprefix("redis "): check for check in checks()}
KINDS = ["redis-6.2", "redis-7", "redis-8", "valkey-9"]
NewServer = Callable[..., Server]


async def look(url: str, part: str, **given: Any) -> CheckResult:
    return await CHECKS[part].run(Camora(url, **given))


async def fill(url: str, *queues: str, jobs: int = 3) -> None:
    """Jobs in some queues, none of them taken."""
    broker = RedisBroker.from_url(url)
    await broker.open()
    for queue in queues:
        await broker.publish(
            [Envelope(id=f"{queue}-{number}", task="t", queue=queue, body=b"x" * 100) for number in range(jobs)]
        )
    await broker.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", list(CHECKS))
async def test_a_sound_server_passes_empty_and_in_use_and_nothing_changes(
    private_server: NewServer, kind: str, part: str
) -> None:
    server = private_server(kind, appendonly=True)
    for protocol in (2, 3):
        url = f"{server.url}?protocol={protocol}"
        empty = await look(url, part)
        assert (empty.ok, empty.fix) == (True, ""), empty
        await fill(url, f"a{protocol}", "b")
        keys = sorted(server.cli("KEYS", "*"))
        used = await look(url, part)
        assert (used.ok, used.fix) == (True, ""), used
        assert sorted(server.cli("KEYS", "*")) == keys


@pytest.mark.parametrize("part", list(CHECKS))
async def test_an_app_without_redis(part: str, tmp_path: Path) -> None:
    for url in ("memory://", f"sqlite:///{tmp_path}/camora.db"):
        assert await look(url, part) == CheckResult(ok=True, text="no Redis in use")


async def test_results_alone_are_looked_at(tmp_path: Path) -> None:
    url = fresh_url()
    found = await look(f"sqlite:///{tmp_path}/camora.db", "server", results=url)
    assert found.text.startswith(url)
    found = await look(url, "server", results=url)
    assert found.text.count(url) == 1, "one store is looked at once"


# The server


async def test_which_version_and_how_far_away(private_server: NewServer) -> None:
    for kind, name in (("redis-6.2", "Redis 6.2."), ("valkey-9", "Valkey 9.")):
        found = await look(private_server(kind).url + "?protocol=3", "server")
        assert name in found.text
        assert "RESP 3" in found.text
        assert found.text.endswith(" ms for a round trip")


async def test_a_server_that_is_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining_module, "_FAR", 0.0)
    found = await look(fresh_url(), "server")
    assert found.ok
    assert "let workers run nearer to it" in found.fix


async def test_servers_that_will_not_do(private_server: NewServer) -> None:
    server = private_server(password="right")
    found = await look(server.url_of(password="hunter2"), "server")
    assert not found.ok
    assert "user name or password are wrong" in found.text
    assert "correct it as said" in found.fix
    url = server.url
    server.kill()
    found = await look(url, "server")
    assert not found.ok
    assert "nothing listens there" in found.text
    assert found.fix.startswith("start it")
    with OldServer("5.0.14", hello=False) as old:
        found = await look(f"redis://127.0.0.1:{old.port}", "server")
    assert not found.ok
    assert "too old" in found.text


# Memory


async def test_eviction_fails_where_jobs_are_and_is_remarked_on_where_only_results_are(
    private_server: NewServer, tmp_path: Path
) -> None:
    server = private_server(maxmemory="100mb", maxmemory_policy="volatile-lru")
    found = await look(server.url, "memory")
    assert not found.ok
    assert "maxmemory-policy volatile-lru: it evicts keys when it is full, and jobs may be lost" in found.text
    only_results = await look(f"sqlite:///{tmp_path}/camora.db", "memory", results=server.url)
    assert only_results.ok
    assert "results may be lost" in only_results.text
    command, _, _ = found.fix.partition(",")
    server.cli(*command.split())
    assert (await look(server.url, "memory")).fix == ""


async def test_how_full_it_is(private_server: NewServer) -> None:
    server = private_server(maxmemory="100mb")
    assert (await look(server.url, "memory")).fix == ""
    used = int(server.info("memory")["used_memory"])
    for share, ok in ((0.8, True), (0.95, False)):
        server.cli("CONFIG", "SET", "maxmemory", int(used / share))
        found = await look(server.url, "memory")
        assert found.ok == ok
        assert "raise maxmemory" in found.fix
    assert "it is nearly full" in found.text


# Persistence


async def test_what_is_left_after_a_restart(private_server: NewServer) -> None:
    server = private_server()
    found = await look(server.url, "persistence")
    assert found.ok
    assert "a restart loses all jobs and results" in found.text
    command, _, _ = found.fix.partition(",")
    server.cli(*command.split())
    for sync, words in (("everysec", "may lose the last second"), ("always", "nothing that was acknowledged is lost")):
        server.cli("CONFIG", "SET", "appendfsync", sync)
        found = await look(server.url, "persistence")
        assert words in found.text
        assert found.fix == ""
    server.cli("CONFIG", "SET", "appendonly", "no")
    server.cli("CONFIG", "SET", "save", "900 1")
    found = await look(server.url, "persistence")
    assert "snapshots only (save 900 1)" in found.text
    assert "appendonly yes" in found.fix


async def test_a_disk_that_cannot_be_written(private_server: NewServer) -> None:
    server = private_server(appendonly=True)
    server.cli("SET", "a", "b")
    (server.folder / "dump.rdb").mkdir()  # the snapshot cannot take its place
    server.cli("BGSAVE")
    wait_until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err", "a failed snapshot", 20, server)
    found = await look(server.url, "persistence")
    assert not found.ok
    assert "it cannot write to its disk (rdb_last_bgsave_status: err)" in found.text
    assert "look at its log" in found.fix


# Copies


async def test_fewer_replicas_than_dispatches_wait_for(private_server: NewServer) -> None:
    master = private_server(config=["repl-diskless-sync-delay 0"])
    assert "0 replicas in sync" in (await look(master.url, "copies")).text
    found = await look(f"{master.url}?wait_replicas=1", "copies")
    assert not found.ok
    assert "wait_replicas = 1: a dispatch that asks for it waits in vain" in found.text
    app = Camora(master.url)
    app.task(name="pay", wait_replicas=2)(lambda: None)  # type: ignore[call-overload]
    of_task = await CHECKS["copies"].run(app)
    assert not of_task.ok
    assert "wait_replicas = 2: a dispatch that asks for it waits in vain" in of_task.text
    private_server(config=[f"replicaof {master.host} {master.port}"])
    wait_until(lambda: "state=online" in str(master.info("replication")), "a replica", 20, master)
    found = await look(f"{master.url}?wait_replicas=1", "copies")
    assert found.ok
    assert "1 replica in sync" in found.text


async def test_sentinels_that_watch() -> None:
    sentinels = shared_sentinels()
    found = await look(sentinels.url, "copies")
    assert (found.ok, found.fix) == (True, "")
    assert "2 replicas in sync; 3 Sentinels watch 'camora', quorum 2" in found.text
    dead = sentinels.url.replace("redis+sentinel://", "redis+sentinel://127.0.0.1:1,")
    found = await look(dead, "copies")
    assert found.ok
    assert "no answer from 127.0.0.1:1" in found.text
    assert found.fix.startswith("start them")


async def test_a_cluster_with_and_without_all_its_slots() -> None:
    cluster = shared_cluster()
    found = await look(cluster.url, "copies")
    assert found.ok
    assert "all slots are served by 3 masters" in found.text
    assert "while a node is down, its queues stand still" in found.fix
    for part in ("server", "memory", "persistence", "clock", "consumers", "queues"):
        assert (await look(cluster.url, part)).ok, part
    node = cluster.node_of("{camora:default}:index")
    slot = cluster.slot_of("some key that is not used")
    holder = cluster.node_of("some key that is not used")
    for other in cluster.nodes:
        other.cli("CLUSTER", "DELSLOTS", slot)
    try:
        wait_until(lambda: "cluster_state:fail" in node.cli("CLUSTER", "INFO"), "a cluster that is not whole", 20)
        found = await look(cluster.url, "copies")
        assert not found.ok
        assert "16383 of 16384 slots" in found.text
    finally:
        holder.cli("CLUSTER", "ADDSLOTS", slot)
        cluster.wait_ok()


# Clocks


@pytest.mark.parametrize(("apart", "words"), [(-30.0, "30.000 s behind"), (30.0, "30.000 s ahead of")])
async def test_clocks_that_are_apart(monkeypatch: pytest.MonkeyPatch, apart: float, words: str) -> None:
    real = time.time
    monkeypatch.setattr(examining_module.time, "time", lambda: real() - apart)
    found = await look(fresh_url(), "clock")
    assert found.ok
    assert words.split()[-1] in found.text
    assert 29 < float(found.text.partition("clock is ")[2].split()[0]) < 31
    assert "time server" in found.fix


# Consumers and queues


@contextmanager
def soon_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(examining_module, "_FORGOTTEN", 0.0)
        yield


async def test_a_worker_that_is_gone_with_jobs_on_loan(monkeypatch: pytest.MonkeyPatch) -> None:
    url = fresh_url()
    await fill(url, "mail")
    broker = RedisBroker.from_url(url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("mail",), worker="host:7", lease=30.0))
    assert len(await consumer.receive(2, 5)) == 2
    found = await look(url, "consumers")
    assert (found.ok, found.fix) == (True, "")
    assert "1 consumer of group 'camora'" in found.text
    await asyncio.sleep(0.005)  # at least a millisecond, which is what the server counts in
    with soon_forgotten(monkeypatch):
        found = await look(url, "consumers")
    assert "gone with jobs on loan: host:7 (2 jobs of 'mail')" in found.text
    assert "start a worker for these queues" in found.fix
    await consumer.close()
    await broker.close()


async def test_groups_that_are_not_ours() -> None:
    url = fresh_url()
    await fill(url, "mail")
    await fill(f"{url}?prefix=other", "mail")
    broker = RedisBroker.from_url(url, RedisSettings(group="theirs"))
    await broker.open()
    await (await broker.consumer(ConsumerSettings(queues=("mail",), worker="w", lease=30.0))).close()
    await broker.close()
    found = await look(url, "consumers")
    assert found.ok
    assert "groups that are not ours: theirs on camora:mail" in found.text
    assert "XGROUP DESTROY" in found.fix


async def test_the_largest_queues() -> None:
    url = fresh_url()
    await fill(url, "small", jobs=1)
    await fill(url, "large", jobs=500)
    found = await look(url, "queues")
    assert "2 queues; the largest: large " in found.text
    assert found.text.index("large ") < found.text.index("small ")


# What may not be looked at


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_user_may_not_ask_is_said_and_does_not_fail(private_server: NewServer, kind: str) -> None:
    server = private_server(kind, users=["ann on >s ~* &* +@all -info -config -memory"], appendonly=True)
    url = server.url_of(user="ann", password="s") + "?protocol=2"
    await fill(url, "a")
    found = {part: await look(url, part) for part in CHECKS}
    assert all(one.ok and not one.fix for one in found.values()), found
    assert "RESP 2" in found["server"].text  # HELLO is open to all
    for part in ("memory", "persistence", "copies", "queues"):
        assert "cannot be looked at" in found[part].text


# On the command line

APP = """
import os
from camora import Camora
app = Camora(os.environ["SHOP_BROKER"])
"""


def doctor(folder: Path, url: str) -> tuple[int, dict[str, dict[str, Any]]]:
    (folder / "tasks.py").write_text(APP)
    done = run_command(folder, "doctor", "--json", SHOP_BROKER=url)
    assert done.stdout, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_the_doctor_shows_them(private_server: NewServer, tmp_path: Path) -> None:
    server = private_server(password="hunter2", appendonly=True)
    code, found = doctor(tmp_path, server.url)
    assert code == 0, found
    for part in CHECKS:
        assert found[f"redis {part}"]["state"] == "ok", found
    server.cli("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
    code, found = doctor(tmp_path, server.url)
    assert code == 1
    assert [name for name, check in found.items() if check["state"] == "failed"] == ["redis memory"]
    server.kill()
    code, found = doctor(tmp_path, server.url)
    assert code == 1
    assert found["redis server"]["state"] == "failed"
    assert "nothing listens there" in found["redis server"]["text"]
    assert found["redis memory"]["state"] == "skipped"
