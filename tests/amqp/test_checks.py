"""`camora doctor` on RabbitMQ: what is wrong is found and named. It changes nothing."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, WorkerSettings
from camora.interfaces import Check, CheckResult
from camora_amqp import AmqpBroker, Queue
from camora_amqp import examining as examining_module
from camora_amqp.checks import checks
from camora_amqp.wire import Wire

from tests.servers.rabbitmq import RabbitServer, fresh_url, fresh_vhost, shared
from tests.servers.rabbitmq_operator import add_user, alarm, allow

CHECKS: dict[str, Check] = {check.name.removeprefix("rabbitmq "): check for check in checks()}


async def look(url: str, part: str, **given: Any) -> CheckResult:
    return await CHECKS[part].run(Camora(url, **given))


def names_on(server: RabbitServer, url: str) -> str:
    """All queues with this URL's prefix, as the server says."""
    prefix = url.rpartition("prefix=")[2].partition("&")[0]
    told = server.eval("[binary_to_list(N) || Q <- rabbit_amqqueue:list(), {resource, _, queue, N} <- [element(2, Q)]]")
    return ",".join(sorted(name for name in told.strip("[]").split(",") if prefix in name))


@pytest.mark.parametrize("part", list(CHECKS))
async def test_a_sound_server_passes_empty_and_in_use_and_nothing_changes(part: str) -> None:
    url, server = fresh_url(), shared()
    found = await look(url, part)
    assert (found.ok, found.fix) == (True, ""), found
    assert names_on(server, url) == ""
    app: Any = Camora(url, queues=[Queue("mail", queue_type="classic")])

    @app.task(queue="mail")
    async def send() -> None: ...

    async with app, app.worker():
        await (await send.dispatch()).result(60)
        before = await asyncio.to_thread(names_on, server, url)
        found = await CHECKS[part].run(app)
        assert (found.ok, found.fix) == (True, ""), found
        assert await asyncio.to_thread(names_on, server, url) == before


@pytest.mark.parametrize("part", list(CHECKS))
async def test_an_app_without_rabbitmq(part: str) -> None:
    assert await look("memory://", part) == CheckResult(ok=True, text="no RabbitMQ in use")


# The server


async def test_which_version_and_who_is_let_in() -> None:
    found = await look(fresh_url(), "server")
    version = ".".join(map(str, shared().binary.version))
    assert f"RabbitMQ {version} at " in found.text
    assert "virtual host '/', user 'guest', " in found.text
    assert found.text.endswith(" ms for a round trip")


async def test_a_server_that_is_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining_module, "_FAR", 0.0)
    found = await look(fresh_url(), "server")
    assert found.ok
    assert "let workers run nearer to it" in found.fix


async def test_a_server_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    greet = Wire._greet

    async def old(self: Wire, *given: Any) -> None:
        await greet(self, *given)
        self.server["version"] = "3.8.9"

    monkeypatch.setattr(Wire, "_greet", old)
    found = await look(fresh_url(), "server")
    assert not found.ok
    assert "it is too old. Before 3.10 messages in quorum queues do not expire" in found.text


async def test_servers_that_will_not_do() -> None:
    url = fresh_url()
    found = await look(url.replace("guest:guest@", "guest:hunter2@"), "server")
    assert not found.ok
    assert "user name or password are wrong" in found.text
    assert "hunter2" not in f"{found}"
    found = await look("amqp://127.0.0.1:1?timeout=1", "server")
    assert not found.ok
    assert found.fix.startswith("correct the URL, or start the server")


async def test_nodes_of_the_url_that_do_not_answer() -> None:
    url = fresh_url()
    scheme, _, rest = url.partition("@")
    host, _, path = rest.partition("/")
    found = await look(f"{scheme}@127.0.0.1:1,{host}/{path}", "nodes")
    assert found.ok
    assert "1 of 2 nodes of the URL let us in; not 127.0.0.1:1 (" in found.text
    assert found.fix == "start them, or take them out of the URL"


async def test_what_a_user_may_not_do() -> None:
    server, url = shared(), fresh_vhost().replace("guest:guest", "clerk:secret")
    vhost = url.rpartition("/")[2]
    add_user(server, "clerk", "secret")
    for patterns, missing in (
        (("^$", ".*", ".*"), "configure"),
        ((".*", "^$", ".*"), "write"),
        ((".*", ".*", "^$"), "read"),
        (("^$", "^$", "^$"), "configure, read, write"),
    ):
        allow(server, "clerk", vhost, *patterns)
        found = await look(url, "rights")
        assert not found.ok
        assert f"user 'clerk' may not {missing} (" in found.text
        assert f"rabbitmqctl set_permissions -p {vhost} clerk" in found.fix
    allow(server, "clerk", vhost, ".*", ".*", ".*")
    assert (await look(url, "rights")).ok


# Queues


async def test_queues_as_the_app_declares_them_and_otherwise() -> None:
    url = fresh_url()
    there = AmqpBroker(url)
    there.declare([Queue("mail", queue_type="classic")])
    await there.open()
    await there._publisher.declarer.queues(["mail", "default"])
    await there.close()
    found = await look(url, "queues", queues=[Queue("mail", queue_type="classic"), Queue("later")])
    assert found.ok
    assert "mail (classic, 0 waiting, 0 consumers)" in found.text
    assert "default (quorum, 0 waiting, 0 consumers)" in found.text
    assert "made when first used: later" in found.text
    found = await look(url, "queues", queues=[Queue("mail")])
    assert not found.ok
    assert "not as this app declares it" in found.text
    assert "inequivalent arg 'x-" in found.text
    assert "mail' in vhost" in found.text


async def test_jobs_that_nobody_takes() -> None:
    app: Any = Camora(fresh_url())

    @app.task(queue="mail")
    async def send() -> None: ...

    async with app:
        await send.dispatch()
        found = await CHECKS["queues"].run(app)
        assert "mail (quorum, 1 waiting, 0 consumers)" in found.text
        assert found.fix == "jobs wait, and no worker takes them: camora worker --queues mail"


async def test_a_queue_that_is_somebody_elses_must_exist() -> None:
    found = await look(fresh_url(), "queues", queues=[Queue("theirs", declare=False)])
    assert not found.ok
    assert "no queue" in found.text


# Alarms and times


async def test_an_alarm() -> None:
    url = fresh_url()
    assert (await look(url, "alarms")).ok
    with alarm(shared()):
        found = await look(url, "alarms")
    assert not found.ok
    assert "it takes no messages: low on memory" in found.text
    assert (await look(url, "alarms")).ok


async def test_heartbeats_and_leases(tmp_path: Path) -> None:
    url = fresh_url()
    found = await look(url, "times")
    assert (found.ok, found.fix) == (True, "")
    assert "two heartbeats of 15 s); a lease is 30 s" in found.text
    assert "ack_timeout = 1800 s" in found.text
    found = await look(f"{url}&heartbeat=60", "times", worker=WorkerSettings(lease=10))
    assert "within 120 s" in found.text
    assert found.fix == "its jobs start elsewhere only then: leave heartbeat out, or set it to 5"
