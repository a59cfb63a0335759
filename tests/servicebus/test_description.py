"""A queue of Service Bus as it is declared, and what is between that and the entity as it is."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus.management._generated.models import QueueDescription
from azure.servicebus.management._models import QueueProperties
from camora import Camora, Queue, config
from camora.errors import ConfigurationError, SettingsError, UnsupportedCapability
from camora_servicebus.description import ServiceBusQueue
from camora_servicebus.differences import Wanted, compared
from camora_servicebus.properties import KINDS, read, text_of, written
from camora_servicebus.settings import ServiceBusSettings, address_of
from camora_servicebus.store import Store
from camora_servicebus.wanting import wanted_of_app, wanted_of_store

URL = "servicebus://root:secret@shop.servicebus.windows.net"


def of_the_service(**given: Any) -> dict[str, Any]:
    """A queue as the client reads it from the service, by Camora's names."""
    plain: dict[str, Any] = {
        "lock_duration": timedelta(minutes=1),
        "max_delivery_count": 10,
        "requires_session": False,
        "requires_duplicate_detection": False,
        "duplicate_detection_history_time_window": timedelta(minutes=10),
        "default_message_time_to_live": timedelta(days=10675199, hours=2),
        "auto_delete_on_idle": timedelta(days=10675199, hours=2),
        "max_size_in_megabytes": 1024,
        "dead_lettering_on_message_expiration": False,
        "enable_partitioning": False,
        "status": "Active",
    }
    return read(KINDS["queue"], QueueProperties._from_internal_entity("q", QueueDescription(**(plain | given))))


def wanted(*, otherwise: dict[str, Any] | None = None, **said: Any) -> Wanted:
    return Wanted(kind="queue", name="q", path=("q",), said=said, otherwise=otherwise or {})


# How it is declared


def test_durations_and_sizes_may_be_texts() -> None:
    queue = ServiceBusQueue("mail", lock_duration="30s", duplicate_detection="1h", max_size="2GiB", time_to_live="1d")
    assert (queue.lock_duration, queue.duplicate_detection, queue.time_to_live) == (30.0, 3600.0, 86400.0)
    assert queue.max_size == 2 * 1024**3


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"lock_duration": "10m"}, "lock_duration=600.0: a time from 5s to 5m"),
        ({"lock_duration": "soon"}, "lock_duration='soon': a time from 5s to 5m"),
        ({"lock_duration": math.nan}, "a time from 5s to 5m"),
        ({"duplicate_detection": 10}, "duplicate_detection=10.0: a time from 20s to 1w"),
        ({"max_delivery_count": 0}, "max_delivery_count=0: a whole number from 1"),
        ({"max_size": "500MB"}, "max_size=500000000: a multiple of 1GiB from 1GiB to 80GiB"),
        ({"max_message_size": "much"}, "max_message_size='much': a multiple of 1KiB"),
        ({"idle_ttl": "1m"}, "idle_ttl=60.0: a time from 5m"),
        ({"sessions": "no"}, "sessions='no': True or False"),
        ({"dead_letter_expired": 1}, "dead_letter_expired=1: True or False"),
        ({"forward_to": "a b"}, "forward_to: queue name 'a b'"),
        ({"forward_to": "mail"}, "it cannot forward to itself"),
        ({"forward_to": "other", "sessions": True}, "a queue with sessions cannot forward"),
        ({"declare": False, "lock_duration": 30}, "leave lock_duration out"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_why(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServiceBusQueue("mail", **given)
    assert text in str(caught.value)


def test_somebody_elses_queue_may_have_sessions() -> None:
    assert ServiceBusQueue("theirs", sessions=True, declare=False).sessions


def test_in_camora_toml(tmp_path: Path) -> None:
    path = tmp_path / "camora.toml"
    path.write_text(
        f'[broker]\nurl = "{URL}"\n\n[queues.mail]\nkind = "servicebus"\nlock_duration = "30s"\n'
        'max_delivery_count = 30\nduplicate_detection = "10m"\nconcurrency = 3\n\n[queues.plain]\nconcurrency = 1\n',
        encoding="utf-8",
    )
    app = Camora.from_toml(path)
    found = {queue.name: queue for queue in app.queues}
    assert found["mail"] == ServiceBusQueue(
        "mail", lock_duration=30, max_delivery_count=30, duplicate_detection=600, concurrency=3
    )
    assert type(found["plain"]) is Queue
    [mail] = [one for one in wanted_of_app(app) if one.name == "mail"]
    assert mail.said["lock_duration"] == 30.0


def test_a_mistake_in_camora_toml_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "camora.toml"
    path.write_text(
        f'[broker]\nurl = "{URL}"\n\n[queues.mail]\nkind = "servicebus"\nlock_duration = "10m"\n', encoding="utf-8"
    )
    with pytest.raises(SettingsError) as caught:
        config.read(path)
    assert "camora.toml:" in str(caught.value)
    assert "a time from 5s to 5m" in str(caught.value)


def test_other_brokers_refuse_it_in_words() -> None:
    with pytest.raises(UnsupportedCapability, match="ServiceBusQueue"):
        Camora("memory://", queues=[ServiceBusQueue("mail")]).broker.declare([ServiceBusQueue("mail")])


# What an app wants


def test_what_an_app_wants_are_all_of_its_queues_with_the_prefix() -> None:
    app: Any = Camora(f"{URL}?prefix=shop-", queues=[ServiceBusQueue("mail", forward_to="other"), Queue("plain")])

    @app.task(queue="tasks")
    async def work() -> None: ...

    found = {one.name: one for one in wanted_of_app(app)}
    assert sorted(found) == ["default", "mail", "plain", "tasks"]
    assert found["mail"].entity == "shop-mail"
    assert found["mail"].said == {"sessions": False, "forward_to": "shop-other"}
    assert found["plain"].said == {"sessions": False}


def test_what_new_queues_get_that_say_nothing() -> None:
    store = Store(*address_of(URL, ServiceBusSettings(lock_duration="45s")))
    [one] = wanted_of_store(store, ["q"], max_deliveries=5)
    assert one.initial == {
        "lock_duration": 45.0, "max_delivery_count": 20, "dead_letter_expired": True, "sessions": False,
    }  # fmt: skip
    [patient] = wanted_of_store(store, ["q"], max_deliveries=50)
    assert patient.initial["max_delivery_count"] == 100, "the service must not give up before the worker does"


# As it is


def test_what_the_service_says_is_read_in_camoras_words() -> None:
    found = of_the_service(forward_to="sb://shop.servicebus.windows.net/other")
    assert found["lock_duration"] == 60.0
    assert math.isinf(found["time_to_live"])
    assert found["duplicate_detection"] is None
    assert found["max_size"] == 1024**3
    assert found["forward_to"] == "other"
    assert of_the_service(requires_duplicate_detection=True)["duplicate_detection"] == 600.0


def test_what_is_written_is_read_again() -> None:
    values = {
        "lock_duration": 30.0, "max_delivery_count": 7, "sessions": True, "duplicate_detection": 60.0,
        "max_size": 5 * 1024**3, "max_message_size": 2 * 1024**2, "partitioned": True, "time_to_live": 3600.0,
        "idle_ttl": 600.0, "dead_letter_expired": True, "forward_dead_letters_to": "graves",
    }  # fmt: skip
    found = of_the_service(**written(KINDS["queue"], values, new=True))
    assert {name: found[name] for name in values} == values


def test_what_is_fixed_is_not_written_again() -> None:
    values = {"sessions": True, "partitioned": True, "duplicate_detection": 60.0, "lock_duration": 30.0}
    assert written(KINDS["queue"], values, new=False) == {
        "duplicate_detection_history_time_window": timedelta(minutes=1),
        "lock_duration": timedelta(seconds=30),
    }


# Between the two


def test_what_is_not_said_is_left_alone() -> None:
    found = of_the_service(lock_duration=timedelta(seconds=17), max_delivery_count=3)
    assert compared(wanted(sessions=False, otherwise={"lock_duration": 60.0}), found).action == "same"


def test_what_is_not_there_is_made_with_all_that_is_said_or_usual() -> None:
    change = compared(wanted(sessions=False, max_delivery_count=5, otherwise={"lock_duration": 60.0}), None)
    assert change.action == "create"
    assert [str(one) for one in change.differences] == [
        "lock_duration: none → 1m", "max_delivery_count: none → 5", "sessions: none → no",
    ]  # fmt: skip


def test_what_differs_is_changed() -> None:
    found = of_the_service(requires_duplicate_detection=True)
    change = compared(wanted(lock_duration=30.0, max_delivery_count=10, duplicate_detection=60.0), found)
    assert change.action == "change"
    assert [str(one) for one in change.differences] == ["lock_duration: 1m → 30s", "duplicate_detection: 10m → 1m"]


@pytest.mark.parametrize(
    ("said", "there", "text"),
    [
        ({"sessions": True}, {}, "sessions: no → yes"),
        ({"sessions": False}, {"requires_session": True}, "sessions: yes → no"),
        ({"duplicate_detection": 60.0}, {}, "duplicate_detection: none → 1m"),
        ({"partitioned": True}, {}, "partitioned: no → yes"),
    ],
)
def test_what_cannot_be_changed_is_impossible(said: dict[str, Any], there: dict[str, Any], text: str) -> None:
    change = compared(wanted(lock_duration=30.0, **said), of_the_service(**there))
    assert change.action == "impossible"
    assert [str(one) for one in change.differences if one.fixed] == [text]


def test_a_partitioned_queue_says_the_size_of_all_its_partitions() -> None:
    found = of_the_service(enable_partitioning=True, max_size_in_megabytes=16 * 1024)
    assert compared(wanted(max_size=1024**3), found).action == "same"
    assert compared(wanted(max_size=2 * 1024**3), found).action == "change"


def test_names_are_the_same_in_any_case() -> None:
    found = of_the_service(forward_to="sb://shop.servicebus.windows.net/Other")
    assert compared(wanted(forward_to="other"), found).action == "same"


def test_texts_of_values() -> None:
    assert [text_of("lock_duration", 90.0), text_of("max_size", 1024**3), text_of("time_to_live", math.inf)] == [
        "90s", "1GiB", "for ever",
    ]  # fmt: skip
    assert [text_of("sessions", True), text_of("forward_to", None), text_of("max_delivery_count", 3)] == [
        "yes", "none", "3",
    ]  # fmt: skip
