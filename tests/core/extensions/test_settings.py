"""Settings of extensions: `[extensions.NAME]`, variables, and code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from camora import Camora, Middleware, Provider, plugins
from camora.cli import main
from camora.config import app_arguments, read
from camora.config.schema import schema_of
from camora.errors import ConfigurationError, PluginConflict, SettingsError
from camora.interfaces import Extension
from camora.plugin_check import check

from tests.core.extensions.examples import Next, NextSettings, installed, offering

PLUGIN = '''
import attrs
from camora import Provider, hookimpl
from camora.interfaces import Extension
from camora.settings import Duration


@attrs.frozen(kw_only=True)
class NextSettings:
    """Settings."""

    greeting: str = "hello"
    """What it says."""
    pause: Duration = 5.0
    """How long it waits."""


class Next(Extension):
    def __init__(self, settings):
        self.settings = settings


@hookimpl
def camora_extensions():
    return [
        Provider("next", lambda made: Next(made.settings), settings=NextSettings, help="Test."),
        Provider("bare", lambda made: Next(None), help="Test."),
    ]
'''
HEAD = 'plugins.local = ["local_next"]\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local_next.py").write_text(PLUGIN)
    return tmp_path


def made(app: Camora, name: str = "next") -> Any:
    [found] = [one.extension for one in app._extensions.installed if one.name == name]
    return found.settings  # type: ignore[attr-defined]


def from_text(text: str, **environ: str) -> Camora:
    Path("camora.toml").write_text(HEAD + text)
    return Camora(**app_arguments(read(environ=environ)))


@pytest.mark.usefixtures("folder")
def test_they_are_read_from_the_file_and_from_variables() -> None:
    assert (made(from_text("")).greeting, made(from_text("")).pause) == ("hello", 5.0)
    app = from_text('[extensions.next]\npause = "2m"\n', CAMORA_EXTENSIONS__NEXT__GREETING="hi")
    assert (made(app).greeting, made(app).pause) == ("hi", 120.0)
    assert made(app, "bare") is None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[extensions.next]\ngreetin = 'x'\n",
            "3:1: extensions.next.greetin: unknown setting: did you mean 'greeting'?",
        ),
        ("[extensions.next]\npause = 'x'\n", "3:1: extensions.next.pause: expected a duration"),
        (
            "[extensions.nxt]\n",
            "2:13: extensions.nxt: unknown extension: did you mean 'next'?",
        ),
        ("[extensions.other]\n", "2:13: extensions.other: unknown extension: known are"),
        ("[extensions.bare]\n", "2:13: extensions.bare: this extension has no settings"),
        ("extensions = 3\n", "2:1: extensions: expected a table, found 3"),
        ("[extensions]\nnext = 3\n", "3:1: extensions.next: expected a table, found 3"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(SettingsError) as error:
        from_text(text)
    [problem] = error.value.problems
    assert problem.removeprefix("camora.toml:").startswith(told)


@pytest.mark.usefixtures("folder")
def test_they_are_shown_and_in_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    Path("camora.toml").write_text(HEAD + '[extensions.next]\npause = "2m"\n')
    main(["config", "show", "--json"])
    shown = json.loads(capsys.readouterr().out)["settings"]["extensions"]["next"]
    assert shown == {"greeting": "hello", "pause": "2m"}
    schema = schema_of(plugins.load([*plugins.discover(), plugins.local("local_next")]))
    table = schema["properties"]["extensions"]["properties"]["next"]
    assert table["properties"]["greeting"] == {
        "$ref": "#/$defs/text",
        "description": "What it says.",
        "default": "hello",
    }
    assert "bare" not in schema["properties"]["extensions"]["properties"]


def offered() -> Any:
    return offering(Provider("next", lambda given: Next(given.settings), settings=NextSettings, help="Test."))


def test_in_code_they_are_a_mapping_or_an_object() -> None:
    catalog = installed(offered())
    assert made(Camora(catalog=catalog)).times == 1
    assert made(Camora(catalog=catalog, extensions={"next": {"times": 3}})).times == 3
    assert made(Camora(catalog=catalog, extensions={"next": NextSettings(times=4)})).times == 4
    with pytest.raises(SettingsError, match="next: unknown setting 'tims': did you mean 'times'"):
        Camora(catalog=catalog, extensions={"next": {"tims": 3}})
    with pytest.raises(ConfigurationError, match="unknown extension 'nexd': did you mean 'next'"):
        Camora(catalog=catalog, extensions={"nexd": {}})


def test_one_whose_plugin_is_disabled_is_not_there() -> None:
    assert [one.name for one in Camora(catalog=installed(offered()))._extensions.installed] == ["next"]
    assert Camora(catalog=installed(offered(), disable=["following"]))._extensions.installed == ()


def test_each_app_has_its_own_and_so_has_a_swapped_one() -> None:
    catalog = installed(offered())
    first, second = Camora(catalog=catalog), Camora(catalog=catalog)
    [one], [other] = first._extensions.installed, second._extensions.installed
    assert one.extension is not other.extension
    assert isinstance(one.extension, Next)
    assert one.extension.host.port is first
    with first.swapped(broker=second.broker, results=None, clock=first.clock, ids=lambda: "fixed"):
        [inside] = first._extensions.installed
        assert isinstance(inside.extension, Next)
        assert inside.extension is not one.extension
        assert inside.extension.host.new_id() == "fixed"


class Wrapping(Middleware):
    """Does nothing."""


@attrs.frozen(kw_only=True)
class Told:
    """Settings."""

    silent: int = 1


class Outer(Middleware):
    """Neither does this one."""


def test_their_middleware_stands_before_the_apps_own_of_its_phase() -> None:
    class Linking(Extension):
        middleware = (Wrapping(),)

    catalog = installed(offering(Provider("linking", lambda _: Linking(), help="Test.")))
    app = Camora(catalog=catalog, middleware=[Outer()])
    chain = [(link.name, link.origin) for link in app.chain()]
    assert chain.index(("Wrapping", "following")) + 1 == chain.index(("Outer", "app"))


def test_two_that_read_one_header_are_refused() -> None:
    providers = [Provider(name, lambda _: Next(), help="Test.") for name in ("one", "two")]
    with pytest.raises(PluginConflict, match="'one' of following and 'two' of following both read the header"):
        Camora(catalog=installed(offering(*providers)))


def test_the_check_of_plugins_looks_at_them() -> None:
    good = Provider("good", lambda _: Next(), help="Test.")
    assert check(sources=[offering(good)], name="following")[0].text.startswith("camora-following is not installed as")
    bad = Provider("bad", lambda _: Wrapping(), settings=Told)
    texts = [finding.text for finding in check(sources=[offering(bad)], name="following")][1:]
    assert texts == [
        "camora_extensions, 'bad': has no help, the line that lists show beside its name",
        "camora_extensions, 'bad': setting 'silent' of Told is not described: say in its docstring what `silent` is",
        "camora_extensions, 'bad': makes a Wrapping, which is no Extension",
    ]
