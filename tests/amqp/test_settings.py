"""The same in `camora.toml` as in code: exchanges, queues, bindings and options of tasks; and what is wrong there."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.errors import SettingsError
from camora_amqp import AmqpSettings, Binding, Exchange, ExchangeType, Queue
from camora_amqp.settings import split_url

from tests import forked
from tests.amqp.test_topology import Seen, listening, tell
from tests.servers.rabbitmq import fresh_url

FILE = """
app = "shop:app"

[broker]
url = "{url}"

[[broker.exchanges]]
name = "news"
type = "topic"

[[broker.exchanges]]
name = "print"
type = "headers"

[results]
enabled = false

[queues.mail]
kind = "amqp"
queue_type = "classic"
prefetch = 10
durable = false
message_ttl = "1h30m"
idle_ttl = "10m"
bindings = [{{exchange = "news", routing_key = "a.*"}}, {{exchange = "print", headers = {{format = "pdf"}}}}]

[queues.urgent]
kind = "amqp"
queue_type = "classic"
max_priority = 9

[tasks."tell"]
exchange = "news"
routing_key = "a.b"

[tasks."draw"]
route = {{exchange = "print", headers = {{format = "pdf"}}}}
"""

APP = "from camora import Camora\napp = Camora.from_toml()\n"
WORDS = ["exchanges", "bindings", "routing_key", "message_headers", "message_ttl", "route", "consumer_priority"]
CLASSIC = "amqp://h?prefix=a.&queue_type=classic&max_priority=3"


def folder_with(tmp_path: Path, text: str, app: str = "") -> Path:
    (tmp_path / "camora.toml").write_text(text)
    (tmp_path / "shop.py").write_text(app)
    return tmp_path / "camora.toml"


async def test_a_file_says_all_that_code_says(tmp_path: Path) -> None:
    app = Camora.from_toml(folder_with(tmp_path, FILE.format(url=fresh_url())))
    seen = Seen()
    task = tell(seen, app)
    draw = app.task(name="draw")(task.function)
    [mail] = [queue for queue in app.queues if queue.name == "mail"]
    assert mail == Queue(
        "mail", queue_type="classic", durable=False, prefetch=10, message_ttl=5400, idle_ttl=600,
        bindings=[Binding("news", "a.*"), Binding("print", headers={"format": "pdf"})],
    )  # fmt: skip
    async with listening(app, "mail", "urgent"):
        await task.dispatch(1)
        await draw.dispatch(2)
        assert await seen.wait(2) == [("mail", 1), ("mail", 2)]
    assert app.broker.capabilities.priority


def check(folder: Path, *command: str) -> tuple[int, str]:
    told = forked.run(
        [sys.executable, "-m", "camora", *command], cwd=folder, capture_output=True, text=True, timeout=60
    )
    return told.returncode, told.stdout + told.stderr


def test_the_commands_know_all_of_it(tmp_path: Path) -> None:
    folder_with(tmp_path, FILE.format(url="amqp://localhost"), APP)
    code, text = check(tmp_path, "config", "check")
    assert code == 0, text
    code, text = check(tmp_path, "config", "schema")
    assert code == 0, text
    schema = json.loads(text)
    shown = json.dumps(schema)
    for word in (
        "exchanges",
        "bindings",
        "routing_key",
        "message_headers",
        "message_ttl",
        "route",
        "consumer_priority",
    ):
        assert f'"{word}"' in shown, word


SLIPS = {
    "type": ('type = "topic"', 'type = "tpic"', "expected one of 'direct', 'fanout', 'topic', 'headers', found 'tpic'"),
    "twice": ('name = "print"', 'name = "news"', "exchanges: 'news' stands there twice"),
    "binding": ('routing_key = "a.*"', 'ruoting_key = "a.*"', "did you mean 'routing_key'?"),
    "ttl": ('message_ttl = "1h30m"', 'message_ttl = "soon"', "soon"),
    "limit": ("prefetch = 10", "delivery_limit = 10", "a classic queue has no delivery limit"),
    "exchange": ('exchange = "news"\nrouting_key', "exchange = 3\nrouting_key", "exchange name 3"),
    "route": ("route = {exchange", "route = {exchnge", "did you mean 'exchange'?"),
}


@pytest.mark.parametrize("what", SLIPS)
def test_slips_are_named_with_their_place(tmp_path: Path, what: str) -> None:
    old, new, text = SLIPS[what]
    file = FILE.format(url="amqp://localhost")
    assert old in file
    folder_with(tmp_path, file.replace(old, new), APP)
    code, told = check(tmp_path, "config", "check")
    assert code != 0
    assert "Traceback" not in told
    assert text in " ".join(told.split())


# URLs


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("amqp://h", {}),
        (CLASSIC, {"prefix": "a.", "queue_type": "classic", "max_priority": 3}),
        ("amqp://h?timeout=500ms&heartbeat=5&prefetch=7", {"timeout": 0.5, "heartbeat": 5.0, "prefetch": 7}),
    ],
    ids=["plain", "queues", "times"],
)  # fmt: skip
def test_settings_in_a_url(url: str, given: dict[str, Any]) -> None:
    assert split_url(url)[1] == AmqpSettings(**given)


def test_a_url_adds_to_settings_and_takes_nothing_away() -> None:
    settings = AmqpSettings(prefix="a.", exchanges=[Exchange("news", "topic")])
    _, made = split_url("amqp://h?prefetch=3", settings)
    assert made == AmqpSettings(prefix="a.", prefetch=3, exchanges=(Exchange("news", ExchangeType.TOPIC),))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("exchanges=news", "unknown setting 'exchanges'"),
        ("queue_type=qorum", "did you mean 'quorum'?"),
        ("prefix=ü", "prefix: ASCII letters"),
        ("prefix=amq.", "belong to the server"),
        ("max_priority=3", "quorum queues have no priorities"),
        ("delay=plugn", "did you mean 'plugin'?"),
        ("prefetch=1&prefetch=2", "is given twice"),
    ],
    ids=["table", "word", "letters", "reserved", "priorities", "delay", "twice"],
)
def test_slips_in_a_url(query: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        split_url(f"amqp://ann:secret@h?{query}")
    assert text in str(caught.value) and "secret" not in str(caught.value)
