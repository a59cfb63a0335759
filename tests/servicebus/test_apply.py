"""Entities are made what the app declares, whatever goes wrong. What cannot be is said, and nothing is deleted."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from azure.core.credentials import AccessToken
from camora import Camora, Queue
from camora.errors import BrokerUnavailable, ConfigurationError
from camora_servicebus import ServiceBusBroker, ServiceBusQueue, ServiceBusSubscription
from camora_servicebus.admin import Admin, Counts, Tier
from camora_servicebus.admin_errors import Conflict, NotAllowed, Refused
from camora_servicebus.applying import carried_out, checked, create_missing, planned
from camora_servicebus.differences import Change
from camora_servicebus.settings import ServiceBusSettings, address_of
from camora_servicebus.store import Store
from camora_servicebus.wanting import wanted_of_store

from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.entities import TopicOptions
from tests.servicebus.managing import Management, management
from tests.servicebus.test_auth import Gate

__all__ = ["management"]  # a fixture


async def apply(store: Store, queues: Sequence[Queue]) -> list[tuple[str, str]]:
    """Name and action of each, after all was done."""
    store.learn(queues)
    async with Admin(store) as admin:
        changes = await planned(admin, wanted_of_store(store, [queue.name for queue in queues]))
        checked(changes, store.label)
        return [(change.wanted.name, change.action) async for change in carried_out(admin, changes)]


async def plan(store: Store, queues: Sequence[Queue]) -> dict[str, Change]:
    store.learn(queues)
    async with Admin(store) as admin:
        found = await planned(admin, wanted_of_store(store, [queue.name for queue in queues]))
    return {change.wanted.name: change for change in found}


# What is made and changed


async def test_what_is_missing_is_made_and_a_repetition_changes_nothing(management: Management) -> None:
    queues = [
        ServiceBusQueue("mail", lock_duration="30s", max_delivery_count=30, duplicate_detection="1h", max_size="2GiB"),
        ServiceBusQueue("ordered", sessions=True, time_to_live="1d", dead_letter_expired=False),
        Queue("plain"),
    ]
    made = await apply(management.store(prefix="shop-"), queues)
    assert made == [("mail", "create"), ("ordered", "create"), ("plain", "create")]
    assert management.names() == ["shop-mail", "shop-ordered", "shop-plain"]
    mail, ordered, plain = (management.options(f"shop-{name}") for name in ("mail", "ordered", "plain"))
    assert (mail.lock_duration, mail.max_delivery_count, mail.max_size) == (30.0, 30, 2 * 1024**3)
    assert (mail.requires_duplicate_detection, mail.duplicate_detection_window) == (True, 3600.0)
    assert (ordered.requires_session, ordered.default_time_to_live) == (True, 86400.0)
    assert ordered.dead_lettering_on_message_expiration is False
    assert (plain.lock_duration, plain.max_delivery_count, plain.dead_lettering_on_message_expiration) == (
        60.0,
        20,
        True,
    )
    again = await apply(management.store(prefix="shop-"), queues)
    assert again == [("mail", "same"), ("ordered", "same"), ("plain", "same")]
    assert [method for method, _ in management.asked].count("PUT") == 3


async def test_only_what_is_said_is_changed(management: Management) -> None:
    management.create("mail", lock_duration=17.0, max_delivery_count=3, dead_lettering_on_message_expiration=False)
    assert await apply(management.store(), [Queue("mail")]) == [("mail", "same")]
    assert await apply(management.store(), [ServiceBusQueue("mail", lock_duration=45)]) == [("mail", "change")]
    found = management.options("mail")
    assert (found.lock_duration, found.max_delivery_count, found.dead_lettering_on_message_expiration) == (
        45.0,
        3,
        False,
    )


async def test_nothing_is_deleted_that_is_no_longer_declared(management: Management) -> None:
    await apply(management.store(), [Queue("mail"), Queue("old")])
    await apply(management.store(), [Queue("mail")])
    assert management.names() == ["mail", "old"]


async def test_what_is_forwarded_to_is_made_first(management: Management) -> None:
    queues = [
        ServiceBusQueue("a", forward_to="b"),
        ServiceBusQueue("b", forward_dead_letters_to="c"),
        ServiceBusQueue("c"),
    ]
    assert [name for name, _ in await apply(management.store(), queues)] == ["c", "b", "a"]
    assert {action for _, action in await apply(management.store(), queues)} == {"same"}


async def test_a_plan_changes_nothing(management: Management) -> None:
    management.create("there", max_delivery_count=3)
    found = await plan(management.store(), [Queue("new"), ServiceBusQueue("there", max_delivery_count=9)])
    assert {name: change.action for name, change in found.items()} == {"new": "create", "there": "change"}
    assert [str(one) for one in found["there"].differences] == ["max_delivery_count: 3 → 9"]
    assert management.names() == ["there"]
    assert management.options("there").max_delivery_count == 3


# What cannot be


async def test_what_cannot_be_changed_is_one_error_with_both_sides_and_nothing_is_done(management: Management) -> None:
    management.create("mail", requires_session=True)
    management.create("sums")
    queues = [
        Queue("mail"), ServiceBusQueue("sums", duplicate_detection="10m", lock_duration=20), Queue("new"),
        ServiceBusQueue("theirs", declare=False),
    ]  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        await apply(management.store(), queues)
    text = str(caught.value)
    assert "nothing was changed" in text
    assert "queue 'mail' (mail): sessions is 'yes' on the service, and 'no' here" in text
    assert "queue 'sums' (sums): duplicate_detection is 'none' on the service, and '10m' here" in text
    assert "queue 'theirs' (theirs) does not exist, and with declare=False it is not made" in text
    assert management.names() == ["mail", "sums"]


async def test_somebody_elses_queue_is_left_alone(management: Management) -> None:
    management.create("theirs", max_delivery_count=3)
    assert await apply(management.store(), [ServiceBusQueue("theirs", declare=False)]) == [("theirs", "same")]


async def test_a_name_that_a_topic_has(management: Management) -> None:
    management.namespace.create_topic("news", TopicOptions())
    with pytest.raises(Refused, match="'news' is there, but it is no queue: take another name"):
        await apply(management.store(), [Queue("news")])


async def test_what_the_service_refuses_is_said_in_its_words(management: Management) -> None:
    management.refuse(400, "SubCode=40000. The value is out of range. TrackingId:abc, SystemTracker:x", method="PUT")
    with pytest.raises(Refused) as caught:
        await apply(management.store(), [Queue("mail")])
    assert str(caught.value).endswith("make queue 'mail': the service refuses: The value is out of range")


async def test_what_does_not_stay_changed_is_an_error(management: Management) -> None:
    for _ in range(20):  # whenever it is asked for, somebody has set it back
        management.before(lambda: _set(management, "mail", 3), method="GET")
    management.create("mail", max_delivery_count=3)
    with pytest.raises(ConfigurationError, match=r"does not become what is declared, .*: max_delivery_count: 3 → 9"):
        await apply(management.store(), [ServiceBusQueue("mail", max_delivery_count=9)])


def _set(management: Management, queue: str, count: int) -> None:
    if queue in (one.path for one in management.namespace.queues()):
        found: Any = management.namespace.target(queue)
        management.namespace.update_queue(queue, attrs.evolve(found.options, max_delivery_count=count))


# What goes wrong on the way


async def test_an_answer_that_is_lost_changes_nothing_about_the_end(management: Management) -> None:
    management.lose()
    queues = [ServiceBusQueue("mail", max_delivery_count=9)]
    assert await apply(management.store(), queues) == [("mail", "create")]
    assert management.options("mail").max_delivery_count == 9
    management.lose()
    assert await apply(management.store(), [ServiceBusQueue("mail", max_delivery_count=11)]) == [("mail", "change")]
    assert management.options("mail").max_delivery_count == 11


async def test_a_service_that_has_no_time_is_asked_again(management: Management) -> None:
    management.refuse(503, "The server is busy. Please wait 2 seconds and try again.", times=2)
    management.refuse(429, "The server is busy.", method="PUT")
    assert await apply(management.store(), [Queue("mail")]) == [("mail", "create")]


async def test_a_conflict_with_somebody_else_is_looked_at_again(management: Management) -> None:
    management.refuse(409, "SubCode=40901. Another conflicting operation is in progress.", times=2, method="PUT")
    assert await apply(management.store(), [Queue("mail")]) == [("mail", "create")]


async def test_somebody_else_makes_it_at_the_same_moment(management: Management) -> None:
    management.before(lambda: management.create("mail", max_delivery_count=3))
    assert await apply(management.store(), [ServiceBusQueue("mail", max_delivery_count=9)]) == [("mail", "create")]
    assert management.options("mail").max_delivery_count == 9, "made by another, and then changed"


async def test_somebody_else_makes_it_otherwise_at_the_same_moment(management: Management) -> None:
    management.before(lambda: management.create("mail", requires_session=True))
    with pytest.raises(ConfigurationError, match="somebody else was faster: .* sessions is 'yes' on the service"):
        await apply(management.store(), [Queue("mail")])


async def test_two_at_once_end_at_the_same(management: Management) -> None:
    queues = [ServiceBusQueue(f"q{number}", max_delivery_count=9) for number in range(5)]
    done = await asyncio.gather(*(apply(management.store(), queues) for _ in range(3)))
    assert all(len(one) == 5 for one in done)
    assert management.names() == [f"q{number}" for number in range(5)]
    assert {management.options(name).max_delivery_count for name in management.names()} == {9}


async def test_it_stops_at_what_fails_and_goes_on_from_there(management: Management) -> None:
    queues = [Queue("a"), Queue("b"), Queue("c")]
    store = management.store(timeout=1)
    store.learn(queues)
    async with Admin(store) as admin:
        changes = await planned(admin, wanted_of_store(store, ["a", "b", "c"]))
        steps = carried_out(admin, changes)
        assert (await anext(steps)).wanted.name == "a"
        management.refuse(403, "The namespace has all the queues that it may have.", method="PUT")
        with pytest.raises(ConfigurationError):
            await anext(steps)
    assert management.names() == ["a"]
    assert await apply(management.store(), queues) == [("a", "same"), ("b", "create"), ("c", "create")]


async def test_a_subscription_that_was_left_without_its_rule(management: Management) -> None:
    """Whoever made it came no further: a repetition ends it, at the rule that lets everything in as well."""
    queues = [ServiceBusSubscription("mail", topic="events", filter="region = 'eu'")]
    refuse = partial(management.refuse, 403, "There are enough rules.", method="PUT")
    management.before(lambda: management.before(refuse))  # behind those of the topic and the subscription
    store = management.store()
    with pytest.raises(ConfigurationError, match="There are enough rules"):
        await apply(store, queues)
    assert await filter_of(store, "mail") == "1=1"
    assert await apply(store, queues) == [("events", "same"), ("mail", "change")]
    assert await filter_of(store, "mail") == "camora_to = 'mail' OR (camora_to IS NULL AND (region = 'eu'))"
    assert await apply(store, queues) == [("events", "same"), ("mail", "same")]


async def filter_of(store: Store, subscription: str) -> str:
    async with Admin(store) as admin:
        found = await admin.find("subscription", ("events", subscription))
    assert found is not None
    text: str = found["filter"]
    return text


async def test_two_at_once_make_topics_and_subscriptions(management: Management) -> None:
    queues = [ServiceBusSubscription(f"s{number}", topic="events", filter="region = 'eu'") for number in range(3)]
    await asyncio.gather(*(apply(management.store(), queues) for _ in range(3)))
    assert {action for _, action in await apply(management.store(), queues)} == {"same"}


async def test_answers_that_are_lost_again_and_again(management: Management) -> None:
    management.lose(times=9)
    with pytest.raises(BrokerUnavailable, match="the connection broke before the answer came, and it may be done"):
        await apply(management.store(), [Queue("mail")])
    management.lose(times=0)
    assert management.names() == ["mail"]


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("127.0.0.1:1", "no connection to the management interface at 127.0.0.1:1 comes about: Connection refused"),
        ("nobody.invalid:1", "looked for at nobody.invalid:1, and the name of this host is not known. Correct it"),
    ],
)
async def test_nobody_answers(where: str, text: str) -> None:
    store = Management().store(management=where, timeout=1)
    with pytest.raises(BrokerUnavailable) as caught:
        await apply(store, [Queue("mail")])
    assert text in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_somebody_listens_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerUnavailable, match="no answer in time"):
            await apply(Management().store(management=where, timeout=0.3), [Queue("mail")])


async def test_over_tls(tmp_path: Path) -> None:
    with ServiceBusServer(tls=True, strict=True) as server:
        assert server.certificates is not None

        def store(**options: Any) -> Store:
            given = {"management": f"localhost:{server.port}", "timeout": "5", **options}
            query = "&".join(f"{name}={value}" for name, value in given.items())
            return Store(*address_of(f"servicebus://{server.key_name}:{server.key}@localhost?{query}"))

        authority = server.certificates.authority
        assert await apply(store(cafile=authority), [Queue("mail")]) == [("mail", "create")]
        with pytest.raises(Refused, match="certificate of the management interface is not trusted: unable to get"):
            await apply(store(), [Queue("mail")])
        with pytest.raises(ConfigurationError, match="cafile .* cannot be read"):
            await apply(store(cafile=tmp_path / "nope.pem"), [Queue("mail")])


async def test_by_way_of_a_proxy() -> None:
    with ServiceBusServer(tls=True, strict=True) as server:
        assert server.certificates is not None
        async with Gate("p@ss") as gate:

            def store(password: str) -> Store:
                query = f"management=localhost:{server.port}&timeout=5&cafile={server.certificates.authority}"
                proxy = f"http%3A%2F%2Fme:{password}%40127.0.0.1:{gate.port}"
                url = f"servicebus://{server.key_name}:{server.key}@localhost?{query}&proxy={proxy}"
                return Store(*address_of(url))

            assert await apply(store("p%2540ss"), [Queue("mail")]) == [("mail", "create")]
            assert set(gate.through) == {f"localhost:{server.port}"}
            with pytest.raises(BrokerUnavailable, match="407") as caught:
                await apply(store("wr0ng"), [Queue("mail")])
            assert "wr0ng" not in str(caught.value)


# Who may


async def test_credentials_without_the_right_to_manage(management: Management) -> None:
    with pytest.raises(NotAllowed) as caught:
        await apply(management.store("clerk"), [Queue("mail")])
    text = str(caught.value)
    assert "these credentials have no right to manage: Manage,EntityRead claims required" in text
    assert "TrackingId" not in text
    assert "Use a key with Manage" in text
    assert "hunter2" not in text


async def test_credentials_that_are_not_accepted(management: Management) -> None:
    management.refuse(401, "SubCode=40103: Invalid authorization token signature", times=9)
    with pytest.raises(NotAllowed, match="the credentials are not accepted: Invalid"):
        await apply(management.store(), [Queue("mail")])


class Credential:
    """One of the test's own, bound to its loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.scopes: list[str] = []

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.scopes += scopes
        return AccessToken("a.b.c", int(time.time()) + 3600)


async def test_a_token_credential_of_the_loop(management: Management) -> None:
    credential = Credential()
    settings = ServiceBusSettings(credential=credential)
    store = Store(*_without_key(management, settings))
    assert await apply(store, [ServiceBusQueue("a", forward_to="b"), Queue("b")]) == [("b", "create"), ("a", "create")]
    assert set(management.tokens) == {"Bearer a.b.c"}
    assert set(credential.scopes) == {"https://servicebus.azure.net//.default"}


def _without_key(management: Management, settings: ServiceBusSettings) -> Any:
    return address_of(management.url().replace("RootManageSharedAccessKey:hunter2@", ""), settings)


async def test_a_signature_is_shown_as_one(management: Management) -> None:
    signature = "SharedAccessSignature sr=x&sig=y&se=9999999999&skn=root"
    text = f"Endpoint=sb://127.0.0.1:1;SharedAccessSignature={signature};UseDevelopmentEmulator=true"
    settings = ServiceBusSettings(connection_string=text, management=f"127.0.0.1:{management.port}")
    assert await apply(Store(*address_of(None, settings)), [Queue("a")]) == [("a", "create")]
    assert set(management.tokens) == {signature}


async def test_a_credential_that_gives_no_token_in_time(management: Management) -> None:
    class Silent(Credential):
        async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            await asyncio.Event().wait()
            raise AssertionError

    settings = ServiceBusSettings(credential=Silent())
    address, made = _without_key(management, settings)
    with pytest.raises(BrokerUnavailable, match="the credential gave no token within"):
        await apply(Store(address, attrs.evolve(made, timeout=0.1)), [Queue("a")])


async def test_a_credential_that_fails(management: Management) -> None:
    class Broken(Credential):
        async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            raise RuntimeError("no network")

    settings = ServiceBusSettings(credential=Broken())
    with pytest.raises(BrokerUnavailable, match="the credential gave no token: no network"):
        await apply(Store(*_without_key(management, settings)), [Queue("a")])


# The rest of it


async def test_what_the_namespace_is_and_holds(management: Management) -> None:
    async with Admin(management.store()) as admin:
        assert await admin.namespace() == Tier(name="127.0.0.1", tier="standard")
        assert await admin.counts("queue", ("nope",)) is None
        assert await admin.find("queue", ("nope",)) is None
        management.create("mail")
        assert await admin.counts("queue", ("mail",)) == Counts(active=0, scheduled=0, dead=0)
        with pytest.raises(Conflict):
            await admin.create("queue", ("mail",), {})
        with pytest.raises(Refused, match="'gone' was deleted meanwhile"):
            await admin.change("queue", ("gone",), {"max_delivery_count": 3})


async def test_what_is_missing_can_be_made_and_all_else_left_alone(management: Management) -> None:
    management.create("there", max_delivery_count=3)
    store = management.store()
    store.learn([ServiceBusQueue("there", max_delivery_count=9), Queue("new"), ServiceBusQueue("no", declare=False)])
    wanted = wanted_of_store(store, ["there", "new", "no"])
    async with Admin(store) as admin:
        assert await create_missing(admin, wanted) == ["new"]
        assert await create_missing(admin, wanted) == []
    assert management.names() == ["new", "there"]
    assert management.options("there").max_delivery_count == 3


# When the broker is opened


async def test_a_broker_with_create_makes_what_is_missing_when_it_is_opened(management: Management) -> None:
    with ServiceBusServer() as server:
        place = f"127.0.0.1:{server.port}"
        access = f"{server.key_name}:{server.key}"
        url = f"servicebus://{access}@{place}?emulator=true&management={place}&prefix=shop-&create=true"
        server.create_queue("shop-there", max_delivery_count=3)
        app: Any = Camora(
            url, queues=[ServiceBusQueue("mail", lock_duration=30), ServiceBusQueue("there", lock_duration=9)]
        )
        ran: list[int] = []

        @app.task(queue="mail")
        async def send(number: int) -> None:
            ran.append(number)

        async with app, app.worker():
            job = await send.dispatch(1)
            async with asyncio.timeout(60):
                while not server.events("completed", entity="shop-mail"):
                    await asyncio.sleep(0.05)
        assert ran == [1], job
        async with Admin(app.broker.database) as admin:
            mail, there = [await admin.find("queue", (f"shop-{name}",)) for name in ("mail", "there")]
        assert mail is not None
        assert there is not None
        assert (mail["lock_duration"], mail["max_delivery_count"]) == (30.0, 20)
        assert (there["lock_duration"], there["max_delivery_count"]) == (60.0, 3), "what is there is left alone"
        # Whoever may not manage is told so, and not at the first dispatch.
        clerk = url.replace(access, f"clerk:{server.key}").replace(
            f"management={place}", f"management=127.0.0.1:{management.port}"
        )
        broker = ServiceBusBroker(clerk)
        with pytest.raises(NotAllowed, match="have no right to manage"):
            await broker.open()
        await broker.close()
