"""`camora plugins check`: what is wrong with a plugin is found, and what is sound is left in peace."""

from __future__ import annotations

import importlib
import socket
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from camora import MadeFrom, Provider, hookimpl
from camora.builtin.json_codec import JsonCodec
from camora.builtin.memory import MemoryBroker
from camora.errors import SettingsError, UnknownPlugin
from camora.plugin_check import check, described_fields
from camora.plugins import Source


def found_in(hook: str, *providers: Any, **more: Any) -> list[str]:
    def answer() -> Any:
        return list(providers)

    answer.__name__ = hook
    module = SimpleNamespace(**{hook: hookimpl(answer)}, **more)
    source = Source(name="mine", distribution="local", version="", load=lambda: module)
    return [("note: " if one.note else "") + one.text for one in check(sources=[source])]


def broker(factory: Any, **more: Any) -> list[str]:
    return found_in("camora_brokers", Provider("mine", factory, schemes="mine", help="mine", **more))


@pytest.mark.parametrize("name", ["builtin", "camora-sql"])
def test_what_camora_brings_is_sound(name: str) -> None:
    assert [finding.text for finding in check(name) if not finding.note] == []


def test_a_sound_plugin_has_no_findings() -> None:
    assert broker(lambda made: MemoryBroker()) == []


def test_a_name_that_no_plugin_has_is_refused() -> None:
    with pytest.raises(UnknownPlugin, match="no plugin is called 'nats'"):
        check("nats")


def test_what_keeps_a_plugin_from_loading_is_a_finding() -> None:
    def fail() -> Any:
        raise ImportError("No module named 'nats'")

    [finding] = check(sources=[Source(name="nats", distribution="local", version="", load=fail)])
    assert finding.text == "ImportError: No module named 'nats'"
    [text] = found_in("camora_brokers", Provider("mine", MemoryBroker), CAMORA_API=7)  # type: ignore[arg-type]
    assert "built for hook API 7" in text


def test_a_clash_with_another_plugin_is_a_finding() -> None:
    def answer() -> Any:
        return [Provider("mine", lambda made: MemoryBroker(), schemes="mine", help="mine")]

    answer.__name__ = "camora_brokers"
    module = SimpleNamespace(camora_brokers=hookimpl(answer))
    sources = [Source(name=name, distribution="local", version="", load=lambda: module) for name in ("one", "two")]
    [finding] = check("two", sources=sources)
    assert "both offer the name 'mine'" in finding.text


def test_a_distribution_that_is_not_installed_or_does_not_require_camora_is_a_finding() -> None:
    def about(distribution: str) -> list[str]:
        source = Source(name="mine", distribution=distribution, version="1", load=SimpleNamespace)
        return [finding.text for finding in check(sources=[source])]

    assert about("camora-nowhere") == ["camora-nowhere is not installed as a distribution"]
    assert about("pluggy") == ['pluggy does not require camora: add "camora>=0.1,<0.2"']


def test_io_in_a_factory_is_a_finding(tmp_path: Path) -> None:
    def connects(_: MadeFrom) -> Any:
        with socket.socket() as one:
            one.settimeout(0.01)
            one.connect_ex(("127.0.0.1", 9))
        return MemoryBroker()

    def opens(_: MadeFrom) -> Any:
        sqlite3.connect(tmp_path / "x.db").close()
        return MemoryBroker()

    def writes(_: MadeFrom) -> Any:
        (tmp_path / "x").write_text("x")
        return MemoryBroker()

    for factory, event in ((connects, "socket.connect"), (opens, "sqlite3.connect"), (writes, "open")):
        [text] = broker(factory)
        assert f"making it does I/O ({event}" in text


def test_a_library_that_binds_while_it_is_imported_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP libraries do, to see whether there is IPv6."""
    lines = ["import socket", "with socket.socket() as one:", "    one.bind(('127.0.0.1', 0))"]
    (tmp_path / "binds_at_import.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)

    def imports(_: MadeFrom) -> Any:
        importlib.import_module("binds_at_import")
        return MemoryBroker()

    def binds(_: MadeFrom) -> Any:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
        return MemoryBroker()

    assert broker(imports) == []
    [text] = broker(binds)
    assert "making it does I/O (socket.bind" in text


def test_a_factory_that_raises_is_a_finding_and_one_that_wants_more_is_a_note() -> None:
    def fails(_: MadeFrom) -> Any:
        raise TypeError("no")

    def picky(_: MadeFrom) -> Any:
        raise SettingsError("the URL names no stream")

    assert broker(fails) == ["camora_brokers, 'mine': making it raised TypeError: no"]
    [text] = broker(picky)
    assert text.startswith("note: ")
    assert text.endswith("the URL names no stream; give --url")


def test_what_is_made_must_be_what_the_hook_is_for() -> None:
    assert broker(lambda made: JsonCodec()) == ["camora_brokers, 'mine': makes a JsonCodec, which is no Broker"]
    wrong = found_in("camora_codecs", Provider("mine", lambda made: JsonCodec(), help="mine"))
    assert wrong == ["camora_codecs, 'mine': its name is 'json', and it is offered as 'mine'"]


def test_a_broker_without_capabilities_or_with_a_password_in_its_repr_is_a_finding() -> None:
    class Silent(MemoryBroker):
        capabilities = None  # type: ignore[assignment]

    class Talkative(MemoryBroker):
        def __repr__(self) -> str:
            return f"Talkative({self._name!r})"

    [text] = broker(lambda made: Silent())
    assert "declares no capabilities" in text
    [text] = broker(lambda made: Talkative(name=made.url))
    assert "shows the password" in text


@attrs.frozen(kw_only=True)
class Good:
    """`size` is in bytes."""

    size: int = 1
    stream: str = "x"
    """What it is written to."""


@attrs.frozen(kw_only=True)
class Bad:
    size: Any = 1


class Plain:
    pass


def test_settings_are_attrs_typed_and_described() -> None:
    assert described_fields(Good) == {"size": "`size` is in bytes.", "stream": "What it is written to."}
    assert broker(lambda made: MemoryBroker(), settings=Good) == []
    typed, described = broker(lambda made: MemoryBroker(), settings=Bad)
    assert "setting 'size' of Bad has no type" in typed
    assert typed.startswith("note: ")
    assert "setting 'size' of Bad is not described" in described
    assert "Plain, are no attrs class" in broker(lambda made: MemoryBroker(), settings=Plain)[0]


def test_a_provider_without_help_or_scheme_is_a_finding() -> None:
    texts = found_in("camora_brokers", Provider("mine", lambda made: MemoryBroker()))
    assert [text.partition(": ")[2] for text in texts] == [
        "has no help, the line that lists show beside its name",
        "no URL leads to it: give it a scheme, Provider(schemes=…)",
    ]
