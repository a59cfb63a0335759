"""URLs, connection strings and settings: taken apart as they were put together, refused in words, and never shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from camora import Camora
from camora.errors import CamoraError, ConfigurationError, SettingsError
from camora_servicebus import ServiceBusBroker
from camora_servicebus.names import Names
from camora_servicebus.settings import Proxy, ServiceBusSettings, address_of
from hypothesis import example, given
from hypothesis import strategies as st

from tests import forked

KEY = "pl+u/s=="
HOST = "shop.servicebus.windows.net"
STRING = f"Endpoint=sb://{HOST}/;SharedAccessKeyName=root;SharedAccessKey={KEY}"


# Where the namespace is


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"servicebus://{HOST}", (HOST, 5671, False, "", "", "", (HOST, 443))),
        (f"SERVICEBUS://{HOST}/", (HOST, 5671, False, "", "", "", (HOST, 443))),
        (f"servicebus://root:{quote(KEY, safe='')}@{HOST}", (HOST, 5671, False, "root", KEY, "", (HOST, 443))),
        (f"servicebus://a%40b:k@{HOST}?entity=mail", (HOST, 5671, False, "a@b", "k", "mail", (HOST, 443))),
        ("servicebus://r:k@localhost?emulator=true", ("localhost", 5672, True, "r", "k", "", ("localhost", 5300))),
        (
            "servicebus://r:k@127.0.0.1:7?emulator=true&management=127.0.0.1:8",
            ("127.0.0.1", 7, True, "r", "k", "", ("127.0.0.1", 8)),
        ),
        (f"servicebus://{HOST}?management=x", (HOST, 5671, False, "", "", "", ("x", 443))),
    ],
)
def test_urls(url: str, expected: tuple[Any, ...]) -> None:
    found, _ = address_of(url)
    host, port, emulator, name, key, entity, management = expected
    assert (found.host, found.port, found.emulator, found.entity) == (host, port, emulator, entity)
    assert (found.key_name, found.key, found.management) == (name, key, management)
    assert found.label in (f"servicebus://{host}", f"servicebus://{host}:{port}", url)
    assert found.by_key == bool(key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (STRING, (HOST, 5671, False, "root", KEY, "", "")),
        (STRING + ";", (HOST, 5671, False, "root", KEY, "", "")),
        (STRING + ";EntityPath=mail", (HOST, 5671, False, "root", KEY, "", "mail")),
        (STRING.replace("Endpoint", "endpoint"), (HOST, 5671, False, "root", KEY, "", "")),
        (
            f"Endpoint=sb://{HOST};SharedAccessSignature=SharedAccessSignature sr=x&sig=s%3D&se=9&skn=root",
            (HOST, 5671, False, "", "", "SharedAccessSignature sr=x&sig=s%3D&se=9&skn=root", ""),
        ),
        (
            "Endpoint=sb://localhost;SharedAccessKeyName=r;SharedAccessKey=k;UseDevelopmentEmulator=true",
            ("localhost", 5672, True, "r", "k", "", ""),
        ),
        (
            "Endpoint=sb://127.0.0.1:99;SharedAccessKeyName=r;SharedAccessKey=k;UseDevelopmentEmulator=true;",
            ("127.0.0.1", 99, True, "r", "k", "", ""),
        ),
    ],
    ids=["plain", "semicolon", "entity", "case", "signature", "emulator", "port"],
)
def test_connection_strings(text: str, expected: tuple[Any, ...]) -> None:
    found, _ = address_of(None, ServiceBusSettings(connection_string=text))
    host, port, emulator, name, key, signature, entity = expected
    assert (found.host, found.port, found.emulator, found.entity) == (host, port, emulator, entity)
    assert (found.key_name, found.key, found.signature) == (name, key, signature)


def test_a_connection_string_and_a_query_beside_it() -> None:
    text = "Endpoint=sb://127.0.0.1:99;SharedAccessKeyName=r;SharedAccessKey=s3cret"
    settings = ServiceBusSettings(connection_string=text)
    found, _ = address_of("servicebus://?emulator=true&entity=mail", settings)
    assert (found.host, found.port, found.emulator, found.entity) == ("127.0.0.1", 99, True, "mail")
    assert found.management == ("127.0.0.1", 5300)
    with pytest.raises(ConfigurationError, match="listens at its own ports only") as caught:
        address_of(None, settings)
    assert "s3cret" not in str(caught.value)


WORDS = st.text("abcXYZ019-._~@:/?#%+=& ü", min_size=1, max_size=12)


@given(user=WORDS, password=WORDS)
def test_every_key_comes_out_as_it_went_in(user: str, password: str) -> None:
    found, _ = address_of(f"servicebus://{quote(user, safe='')}:{quote(password, safe='')}@{HOST}")
    assert (found.key_name, found.key) == (user, password)


# What cannot be


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("servicebus://", "say where the namespace is"),
        ("servicebus://?emulator=true", "say where the namespace is"),
        ("servicebus://a,b", "name one namespace"),
        (f"servicebus://{HOST}/mail", "?prefix="),
        (f"servicebus://{HOST}:5671x", "no host and port"),
        (f"servicebus://{HOST}:9999", "?endpoint=HOST:PORT"),
        (f"servicebus://root@{HOST}", "has a name and a key"),
        (f"servicebus://:s3cret@{HOST}", "has a name and a key"),
        (f"servicebus://root:s3cret@x@{HOST}/a@b", "write / as %2F"),
        (f"servicebus://root:s3cret@{HOST}?timout=3", "did you mean 'timeout'?"),
        (f"servicebus://root:s3cret@{HOST}?timeout=never", "timeout"),
        (f"servicebus://root:s3cret@{HOST}?timeout=1&timeout=2", "is given twice"),
        (f"servicebus://root:s3cret@{HOST}?transport=websockets", "did you mean 'websocket'?"),
        (f"servicebus://root:s3cret@{HOST}?emulator=perhaps", "expected true or false"),
        (f"servicebus://root:s3cret@{HOST}?prefix=-a", "letter or a digit"),
        (f"servicebus://root:s3cret@{HOST}?prefix=a//b", "letter or a digit"),
        (f"servicebus://root:s3cret@{HOST}?lock_duration=10m", "5 seconds to 5 minutes"),
        (f"servicebus://root:s3cret@{HOST}?receivers=0", "receivers"),
        (f"servicebus://root:s3cret@{HOST}?max_message_size=1", "must be 16384 or more"),
        (f"servicebus://root:s3cret@{HOST}?proxy=socks://me:s3cret%40proxy", "proxy"),
        (f"servicebus://root:s3cret@{HOST}?management=:x", "HOST:PORT"),
        (f"servicebus://root:s3cret@{HOST}?endpoint=one+two", "HOST:PORT"),
        (f"servicebus://root:s3cret@{HOST}?name=%C3%BC", "printable ASCII"),
        (f"servicebus://root:s3cret@{HOST}?credential=x", "unknown setting 'credential'"),
        (f"servicebus://root:s3cret@{HOST}?connection_string=x", "unknown setting 'connection_string'"),
    ],
)
def test_urls_that_cannot_be(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        address_of(url)
    assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("", "it is empty"),
        ("s3cret", "expected Endpoint=sb://"),
        ("Endpoint=sb://h;s3cret==;SharedAccessKeyName=a", "expected Endpoint=sb://"),
        ("SharedAccessKeyName=a;SharedAccessKey=s3cret", "lacks Endpoint"),
        ("Endpoint=sb:///;SharedAccessKeyName=a;SharedAccessKey=s3cret", "names no host"),
        ("Endpoint=sb://a:s3cret@h;SharedAccessKeyName=a;SharedAccessKey=s3cret", "names no host"),
        ("Endpoint=sb://h;SharedAccessKey=s3cret", "lacks SharedAccessKeyName"),
        ("Endpoint=sb://h;SharedAccessKeyName=a", "lacks SharedAccessKey"),
        ("Endpoint=sb://h", "give the URL alone, servicebus://h"),
        ("Endpoint=sb://h;SharedAccessKeyName=a;SharedAccessKey=s3cret;SharedAccessSignature=s3cret", "keep one"),
        ("Endpoint=sb://h;SharedAccessKeyName=a;SharedAccessKey=s3cret;SharedAccessKey=s3cret", "stands there twice"),
    ],
)
def test_connection_strings_that_cannot_be(given: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ServiceBusSettings(connection_string=given)
    assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)


class Credential:
    """What azure-identity has, too."""

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("url", "settings", "text"),
    [
        (None, {}, "say where the namespace is"),
        (f"servicebus://{HOST}", {"connection_string": STRING}, "leave one of them out"),
        (f"servicebus://a:s3cret@{HOST}", {"credential": Credential()}, "leave one of them out"),
        (None, {"connection_string": STRING, "credential": Credential()}, "leave one out"),
    ],
)
def test_two_answers_to_one_question(url: str | None, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        ServiceBusBroker(url, ServiceBusSettings(**settings))
    assert "s3cret" not in str(caught.value) and KEY not in str(caught.value)


def test_a_credential_without_a_token_is_none() -> None:
    with pytest.raises(SettingsError, match="azure.identity.aio"):
        ServiceBusSettings(credential=object())


def test_a_url_adds_to_settings_and_takes_nothing_away() -> None:
    credential = Credential()
    _, made = address_of(f"servicebus://{HOST}?timeout=3s", ServiceBusSettings(prefix="a.", credential=credential))
    assert (made.prefix, made.timeout, made.credential) == ("a.", 3.0, credential)


def test_proxies_are_urls() -> None:
    assert Proxy.of("http://me:p%40w@proxy.corp:3128", "proxy") == Proxy("proxy.corp", 3128, "me", "p@w")
    assert Proxy.of("http://proxy.corp", "proxy") == Proxy("proxy.corp", 8080)
    assert Proxy.of("http://me:p%40w@proxy.corp:3128", "proxy").url == "http://me:p%40w@proxy.corp:3128"
    assert ServiceBusSettings(proxy="http://proxy.corp").over_websockets
    assert not ServiceBusSettings().over_websockets


# What is shown

SHOWN = [
    f"servicebus://root:{quote(KEY, safe='')}@{HOST}?proxy=" + quote(f"http://me:{quote(KEY, safe='')}@proxy", safe=""),
    None,
]


@pytest.mark.parametrize("url", SHOWN, ids=["url", "connection string"])
def test_no_text_form_has_a_secret(url: str | None) -> None:
    proxy = f"http://me:{quote(KEY, safe='')}@proxy"
    settings = ServiceBusSettings() if url else ServiceBusSettings(connection_string=STRING, proxy=proxy)
    broker = ServiceBusBroker(url, settings)
    address, made = address_of(url, settings)
    for shown in (repr(broker), repr(address), repr(made), repr(broker.database), str(made), repr(Camora(broker))):
        for secret in (KEY, quote(KEY, safe=""), quote(quote(KEY, safe=""), safe=""), "me:"):
            assert secret not in shown


def test_the_password_of_a_proxy_in_a_url_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "camora.toml").write_text(f'app = "shop:app"\n[broker]\nurl = "{SHOWN[0]}"\n')
    (tmp_path / "shop.py").write_text(APP)
    code, text = command(tmp_path, "config", "show")
    assert code == 0, text
    assert HOST in text and "pl%" not in text


FILE = """
app = "shop:app"

[broker]
url = "servicebus://?receivers=3"
connection_string = "{text}"
prefix = "shop."
timeout = "3s"

[results]
enabled = false
"""
APP = "from camora import Camora\napp = Camora.from_toml()\n"


def command(folder: Path, *words: str) -> tuple[int, str]:
    done = forked.run([sys.executable, "-m", "camora", *words], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_a_file_says_all_that_code_says_and_keeps_its_secret(tmp_path: Path) -> None:
    (tmp_path / "camora.toml").write_text(FILE.format(text=STRING))
    (tmp_path / "shop.py").write_text(APP)
    app = Camora.from_toml(tmp_path / "camora.toml")
    assert isinstance(app.broker, ServiceBusBroker)
    settings = app.broker.database.settings
    assert (settings.prefix, settings.timeout, settings.connection_string) == ("shop.", 3.0, STRING)
    assert settings.receivers == 3
    for words in (["config", "show"], ["config", "check"], ["plugins"], ["config", "show", "--json"]):
        code, text = command(tmp_path, *words)
        assert code == 0, text
        assert KEY not in text
    code, text = command(tmp_path, "config", "schema")
    assert code == 0, text
    assert '"connection_string"' in json.dumps(json.loads(text))


def test_a_slip_in_a_file_is_named_and_keeps_its_secret(tmp_path: Path) -> None:
    (tmp_path / "camora.toml").write_text(FILE.format(text=STRING.replace("SharedAccessKeyName", "SharedAccesKeyName")))
    (tmp_path / "shop.py").write_text(APP)
    code, text = command(tmp_path, "config", "check")
    assert code != 0
    assert "Traceback" not in text
    assert "connection_string" in text
    assert KEY not in text


def test_a_connection_string_in_the_place_of_a_url_is_not_shown() -> None:
    with pytest.raises(CamoraError) as caught:
        Camora(STRING)
    assert KEY not in str(caught.value)


# Names


@pytest.mark.parametrize(
    ("queue", "entity"),
    [
        ("mail", "mail"),
        ("mail.high_priority-1", "mail.high_priority-1"),
        ("mail/bulk", "mail/bulk"),
        ("a:b", "a_x3Ab"),
        ("-a-", "x_x00_x2Da_x2D"),
        ("ü", "x_x00_xC3_xBC"),
        ("a_x41", "a_x5Fx41"),
    ],
)
def test_names_of_entities(queue: str, entity: str) -> None:
    assert Names("").queue(queue) == entity
    assert Names("").of_queue(entity) == queue


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters=" *#{}", exclude_categories=("C", "Z")), min_size=1
).filter(lambda name: len(name) <= 200 and name.isprintable())


@given(NAMES, st.sampled_from(["", "shop."]))
@example(":", "")
@example("x:", "")
@example("x_x3A", "")
def test_every_queue_has_an_entity_that_the_service_takes(queue: str, prefix: str) -> None:
    names = Names(prefix)
    entity = names.queue(queue)
    assert len(entity) <= 260
    assert entity.isascii() and not set(entity) - set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/"
    )
    assert entity[0].isalnum() and entity[-1].isalnum()
    assert names.of_queue(entity) == queue
    if len(entity) < 260:
        assert Names(prefix).of_queue(entity) == queue  # whoever has not seen it reads it, too


def test_names_that_differ_by_case_alone_are_one_to_the_service() -> None:
    names = Names("")
    names.queue("mail")
    with pytest.raises(ConfigurationError, match="differ by case alone"):
        names.queue("Mail")
