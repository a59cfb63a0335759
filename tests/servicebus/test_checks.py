"""`camora doctor` on Azure Service Bus: what is wrong is found and named, as far as it may be seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from camora import Camora, WorkerSettings
from camora.interfaces import Check, CheckResult
from camora.queue import Queue
from camora_servicebus import ServiceBusQueue, ServiceBusSubscription, ServiceBusTopic
from camora_servicebus import examining as examining_module
from camora_servicebus.admin import Counts
from camora_servicebus.checks import checks
from camora_servicebus.differences import Change, Wanted
from camora_servicebus.judging import advice, lock_advice

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.managing import Management, management
from tests.servicebus.sending import new_name

__all__ = ["management"]  # a fixture

CHECKS: dict[str, Check] = {check.name.removeprefix("servicebus "): check for check in checks()}
NO_RIGHT = "amqp:unauthorized-access"


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    """An emulator with the queues of all tests here; each has names of its own."""
    with ServiceBusServer() as server:
        yield server


def url_of(server: ServiceBusServer, *, key: str = "", management: int = 0, **options: Any) -> str:
    """With the management interface of the same server, or another one."""
    access = f"{server.key_name}:{key or server.key}" if not management else f"clerk:{server.key}"
    given = {"emulator": "true", "timeout": "5", "management": f"127.0.0.1:{management or server.port}", **options}
    return f"servicebus://{access}@127.0.0.1:{server.port}?" + "&".join(
        f"{key}={value}" for key, value in given.items()
    )


def made(server: ServiceBusServer, *parts: str, **options: Any) -> str:
    """A prefix, with the queues `default` and these behind it."""
    prefix = f"{new_name('shop')}-"
    for part in ("default", *parts):
        server.create_queue(prefix + part, **{"max_delivery_count": 20, **options})
    return prefix


async def look(url: str, part: str, **given: Any) -> CheckResult:
    return await CHECKS[part].run(Camora(url, **given))


@pytest.mark.parametrize("part", list(CHECKS))
async def test_a_sound_namespace_passes_and_nothing_changes(part: str, shared: ServiceBusServer) -> None:
    prefix = made(shared, "mail")
    app: Any = Camora(url_of(shared, prefix=prefix))

    @app.task(queue="mail")
    async def send() -> None: ...

    async with app:
        await send.dispatch()
    await bury(shared, f"{prefix}default")
    before = [shared.counts(path) for path in (f"{prefix}default", f"{prefix}mail")]
    taken = len(shared.events("locked"))
    found = await CHECKS[part].run(app)
    assert (found.ok, found.fix) == (True, ""), found
    assert shared.key not in found.text
    assert [shared.counts(path) for path in (f"{prefix}default", f"{prefix}mail")] == before
    assert len(shared.events("locked")) == taken, "neither a job nor a dead letter was taken to look at it"


async def bury(server: ServiceBusServer, queue: str) -> None:
    """One dead letter in a queue."""
    async with ServiceBusClient.from_connection_string(server.connection_string) as client:
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage(b"{}"))
        async with client.get_queue_receiver(queue) as receiver:
            [message] = await receiver.receive_messages(1, max_wait_time=60)
            await receiver.dead_letter_message(message, reason="no")


@pytest.mark.parametrize("part", list(CHECKS))
async def test_an_app_without_service_bus(part: str) -> None:
    assert await look("memory://", part) == CheckResult(ok=True, text="no Azure Service Bus in use")


# The namespace


async def test_who_is_let_in_and_how_far_away_it_is(shared: ServiceBusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await look(url_of(shared), "namespace")
    assert "it lets key 'RootManageSharedAccessKey' in by AMQP, " in found.text
    assert found.text.endswith(" ms for a round trip")
    monkeypatch.setattr(examining_module, "_FAR", 0.0)
    found = await look(url_of(shared), "namespace")
    assert found.ok
    assert "let workers run in its region" in found.fix


async def test_credentials_that_are_not_accepted() -> None:
    with ServiceBusServer(strict=True) as server:
        assert (await look(url_of(server), "namespace")).ok
        found = await look(url_of(server, key="hunter2"), "namespace")
    assert not found.ok
    assert "hunter2" not in f"{found}"
    assert found.fix.startswith("correct the key's name and the key")


async def test_a_namespace_that_cannot_be_reached_or_does_not_answer(shared: ServiceBusServer) -> None:
    found = await look("servicebus://root:hunter2@127.0.0.1:1?emulator=true&timeout=1", "namespace")
    assert not found.ok
    assert found.fix.startswith("correct the URL, or clear the way there")
    assert "hunter2" not in f"{found}"
    with ServiceBusServer() as server:
        server.mute()
        found = await look(url_of(server, timeout=1), "namespace")
    assert not found.ok
    assert found.fix.startswith("correct the URL, or clear the way there")


# Rights


async def test_what_we_may_do(shared: ServiceBusServer) -> None:
    prefix = made(shared)
    found = await look(url_of(shared, prefix=prefix), "rights")
    assert f"may Send, Listen, Manage (tried with '{prefix}default')" in found.text
    # Only the dead letters are looked at: no receiver is attached where the jobs are.
    shared.fault("attach_refused", f"{prefix}default/$deadletterqueue", condition=NO_RIGHT, times=1)
    found = await look(url_of(shared, prefix=prefix), "rights")
    assert found.ok
    assert "may Send, Manage (" in found.text
    assert found.fix == "workers need Listen, too; who only dispatches needs nothing but Send"
    shared.fault("attach_refused", f"{prefix}default", condition=NO_RIGHT, times=1)
    shared.fault("attach_refused", f"{prefix}default/$deadletterqueue", condition=NO_RIGHT, times=1)
    found = await look(url_of(shared, prefix=prefix), "rights")
    assert not found.ok
    assert "may neither send nor listen" in found.text
    assert "Azure Service Bus Data Sender" in found.fix


async def test_rights_before_there_is_any_queue(shared: ServiceBusServer) -> None:
    found = await look(url_of(shared, prefix=new_name("none")), "rights")
    assert (found.ok, found.fix) == (True, "")
    assert "no queue of this app is there yet" in found.text


# Queues


async def test_queues_and_what_they_hold(shared: ServiceBusServer) -> None:
    prefix = made(shared, "mail", lock_duration=30.0, requires_duplicate_detection=True)
    app: Any = Camora(url_of(shared, prefix=prefix))

    @app.task(queue="mail")
    async def send() -> None: ...

    async with app:
        await send.dispatch()
        await send.options(delay=3600).dispatch()
    found = await CHECKS["queues"].run(app)
    assert (found.ok, found.fix) == (True, "")
    assert "default (lock 30s, 20 deliveries, no sessions, duplicates known for 10m, 0 waiting)" in found.text
    assert "mail (lock 30s, 20 deliveries, no sessions, duplicates known for 10m, 1 waiting, 1 scheduled)" in found.text


async def test_queues_that_are_not_there(shared: ServiceBusServer) -> None:
    prefix = made(shared)
    found = await look(url_of(shared, prefix=prefix), "queues", queues=[Queue("mail"), Queue("sums")])
    assert not found.ok
    assert found.text.endswith(f": not there: {prefix}mail, {prefix}sums")
    assert found.fix == "camora servicebus apply, with a key or an identity that may manage the namespace"


async def test_queues_that_are_not_as_declared(shared: ServiceBusServer) -> None:
    prefix = made(shared, "mail")
    found = await look(url_of(shared, prefix=prefix), "queues", queues=[ServiceBusQueue("mail", lock_duration=30)])
    assert found.ok
    assert found.fix == f"{prefix}mail is not as declared (lock_duration: 1m → 30s): camora servicebus apply"
    found = await look(url_of(shared, prefix=prefix), "queues", queues=[ServiceBusQueue("mail", sessions=True)])
    assert not found.ok
    assert "sessions is 'no' on the service, and 'yes' here" in found.text


async def test_the_service_must_not_give_up_before_the_worker(shared: ServiceBusServer) -> None:
    prefix = made(shared, max_delivery_count=5)
    found = await look(url_of(shared, prefix=prefix), "queues", worker=WorkerSettings(max_deliveries=5))
    assert not found.ok
    assert f"{prefix}default: after 5 deliveries the service itself moves a job to the dead letters" in found.text
    assert found.fix == (
        "declare default with max_delivery_count=10, then camora servicebus apply; or lower max_deliveries"
    )
    assert (await look(url_of(shared, prefix=prefix), "queues", worker=WorkerSettings(max_deliveries=4))).ok


async def test_queues_that_give_nothing_to_workers(shared: ServiceBusServer) -> None:
    prefix = made(shared, "b")
    shared.create_queue(f"{prefix}a", max_delivery_count=20, forward_to=f"{prefix}b")
    found = await look(url_of(shared, prefix=prefix), "queues", queues=[Queue("a")])
    assert not found.ok
    assert f"{prefix}a forwards all to '{prefix}b', and has nothing for workers" in found.text
    shared.update_queue(f"{prefix}b", status="ReceiveDisabled")
    found = await look(url_of(shared, prefix=prefix), "queues", queues=[Queue("b")])
    assert not found.ok
    assert f"{prefix}b is ReceiveDisabled" in found.text


@pytest.mark.parametrize("part", list(CHECKS))
async def test_a_queue_with_sessions(part: str, shared: ServiceBusServer) -> None:
    prefix = made(shared)
    shared.create_queue(f"{prefix}a", max_delivery_count=20, requires_session=True)
    found = await look(url_of(shared, prefix=prefix), part, queues=[ServiceBusQueue("a", sessions=True)])
    assert (found.ok, found.fix) == (True, ""), found
    if part == "rights":
        assert f"may Send, Listen, Manage (tried with '{prefix}a')" in found.text
    if part == "queues":
        assert "a (lock 1m, 20 deliveries, sessions, " in found.text


async def test_jobs_that_expire_without_a_trace(shared: ServiceBusServer) -> None:
    prefix = made(shared, default_time_to_live=3600.0)
    found = await look(url_of(shared, prefix=prefix), "queues")
    assert found.ok
    assert found.fix == (
        f"{prefix}default drops jobs after 1h without a trace: declare default with dead_letter_expired=True, then "
        "camora servicebus apply"
    )


def test_a_queue_that_is_nearly_full() -> None:
    there = {"time_to_live": math.inf, "dead_letter_expired": True, "max_size": 1000}
    change = Change(wanted=Wanted(kind="queue", name="q", path=("q",)), action="same")
    assert advice(change, there, Counts(active=0, scheduled=0, dead=0, bytes=800)) == []
    assert advice(change, there, Counts(active=0, scheduled=0, dead=0, bytes=900)) == [
        "q is 90 % full: start workers, purge its dead letters, or raise max_size"
    ]


async def test_without_the_right_to_manage_it_says_what_it_could_not_see(
    shared: ServiceBusServer, management: Management
) -> None:
    prefix = made(shared, "mail")
    url = url_of(shared, management=management.port, prefix=prefix)
    found = await look(url, "queues", queues=[Queue("mail")])
    assert (found.ok, found.fix) == (True, "")
    assert f"there: {prefix}default, {prefix}mail; lock duration, delivery count, sessions" in found.text
    assert found.text.endswith("cannot be seen without the right to manage")
    assert "cannot be seen without the right to manage" in (await look(url, "locks")).text
    found = await look(url, "limits")
    assert "its tier cannot be seen without the right to manage; a message may have 256KiB" in found.text
    found = await look(url, "rights")
    assert "key 'clerk' may Send, Listen (" in found.text
    assert "which is all right for workers" in found.text
    found = await look(url, "queues", queues=[Queue("mail"), Queue("nope")])
    assert not found.ok
    assert found.text.endswith(f"not there: {prefix}nope")


async def test_without_a_way_to_the_management_interface_it_says_so(shared: ServiceBusServer) -> None:
    prefix = made(shared)
    url = url_of(shared, management=1, prefix=prefix)
    for part in CHECKS:
        found = await look(url, part)
        assert (found.ok, found.fix) == (True, ""), found
        if part != "namespace":
            assert "cannot be seen because the management interface is not reached" in found.text
            assert "Connection refused" in found.text


# Topics


async def test_topics_and_subscriptions(shared: ServiceBusServer) -> None:
    prefix = made(shared)
    queues = [
        ServiceBusSubscription("mail", topic="events", lock_duration=30),
        ServiceBusSubscription("sums", topic="events"),
    ]
    url = url_of(shared, prefix=prefix)
    found = await look(url, "queues", queues=queues)
    assert not found.ok
    assert found.text.endswith(
        f": not there: {prefix}events, {prefix}events/Subscriptions/mail, {prefix}events/Subscriptions/sums"
    )
    shared.create_topic(f"{prefix}events")
    for name, lock in (("mail", 30.0), ("sums", 60.0)):
        shared.create_subscription(f"{prefix}events", name, lock_duration=lock, max_delivery_count=20)
    found = await look(url, "queues", queues=queues)
    assert found.ok
    assert "topic events (no duplicate detection)" in found.text
    assert "subscription mail (lock 30s, 20 deliveries, no sessions, 0 waiting)" in found.text
    assert f"{prefix}events/Subscriptions/mail is not as declared (filter: 1=1 → camora_to = 'mail' OR" in found.fix
    found = await look(url, "locks", queues=queues)
    assert f"{prefix}events/Subscriptions/mail 30s" in found.text
    assert "events 1m" not in found.text, "a topic locks nothing"
    for part in ("rights", "limits"):
        found = await look(url, part, queues=queues)
        assert (found.ok, found.fix) == (True, "")


async def test_a_subscription_of_somebody_elses(shared: ServiceBusServer, management: Management) -> None:
    prefix = made(shared)
    shared.create_topic(f"{prefix}events")
    shared.create_subscription(f"{prefix}events", "theirs", max_delivery_count=20)
    topic = ServiceBusTopic("events", declare=False)
    queues = [ServiceBusSubscription("theirs", topic=topic, declare=False)]
    found = await look(url_of(shared, prefix=prefix), "queues", queues=queues)
    assert found.ok
    assert found.fix.startswith(
        f"{prefix}events/Subscriptions/theirs has a filter of its owner's, in which camora_to is not"
    )
    url = url_of(shared, management=management.port, prefix=prefix)
    found = await look(url, "queues", queues=[*queues, ServiceBusSubscription("nope", topic=topic)])
    assert not found.ok
    assert found.text.endswith(f": not there: {prefix}events/Subscriptions/nope")


# Locks


async def test_locks_and_leases(shared: ServiceBusServer) -> None:
    prefix = made(shared, lock_duration=30.0)
    found = await look(url_of(shared, prefix=prefix), "locks", worker=WorkerSettings(lease=30))
    assert (found.ok, found.fix) == (True, "")
    assert f"locked for up to: {prefix}default 30s; its lease is 30s" in found.text
    found = await look(url_of(shared, prefix=prefix), "locks", worker=WorkerSettings(lease=120))
    assert found.ok
    assert "declare lock_duration=120, then camora servicebus apply" in found.fix


@pytest.mark.parametrize(
    ("lock", "lease", "text"),
    [
        (60.0, 30.0, None),
        (61.0, 30.0, "declare lock_duration=30,"),
        (29.0, 30.0, "declare lock_duration=30,"),
        (5.0, 30.0, "loses the locks of q: declare lock_duration=30 or more"),
        (30.0, 2.0, None),
        (15.0, 10.0, None),
        (60.0, 10.0, None),
        (90.0, 10.0, "declare lock_duration=30,"),
        (300.0, 3600.0, None),
        (60.0, 3600.0, "declare lock_duration=300,"),
    ],
)
def test_locks_beside_leases(lock: float, lease: float, text: str | None) -> None:
    found = lock_advice({"q": lock}, lease)
    assert len(found) == (0 if text is None else 1)
    assert text is None or text in found[0]


# Limits


async def test_sizes(shared: ServiceBusServer) -> None:
    prefix = made(shared)
    found = await look(url_of(shared, prefix=prefix), "limits")
    assert "tier standard; a message may have 256KiB, and this app sends up to 256KiB" in found.text
    found = await look(url_of(shared, prefix=prefix, max_message_size="1MiB"), "limits")
    assert not found.ok
    assert found.fix == "set max_message_size = '256KiB' in [broker]: what is larger is refused there"


async def test_tiers() -> None:
    with ServiceBusServer(tier="premium") as server:
        prefix = made(server)
        found = await look(url_of(server, prefix=prefix), "limits")
        assert found.ok
        assert "tier premium; a message may have 1MiB, and this app sends up to 256KiB" in found.text
        assert found.fix == "max_message_size = '1MiB' in [broker] sends more"
    with ServiceBusServer(tier="basic") as server:
        prefix = made(server)
        found = await look(url_of(server, prefix=prefix), "limits", queues=[ServiceBusQueue("mail", sessions=True)])
        assert not found.ok
        assert (
            f"tier basic has no topics, sessions and duplicate detection, which {prefix}mail cannot do without"
            in found.text
        )
