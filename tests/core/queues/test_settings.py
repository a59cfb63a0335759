"""Kinds of queues and options of plugins in camora.toml, its schema, and the lists of plugins."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from camora import Camora, Provider, Queue, plugins
from camora.config import Configuration, read
from camora.config.effective import effective
from camora.config.schema import schema_of
from camora.config.writing import as_data, as_toml
from camora.errors import ConfigurationError, PluginLoadError, SettingsError, UnsupportedCapability
from camora.hookspecs import hookimpl
from camora.interfaces import TaskOption
from camora.plugin_check import check
from camora.plugins import Source

from tests import forked
from tests.core.queues import bus_plugin
from tests.core.queues.bus_plugin import BusBroker, BusQueue
from tests.core.queues.conftest import catalog_with, source

# Which others are there depends on what is installed.
UNKNOWN = (
    r"4:1: queues\.a\.kind: no plugin offers a queue kind called 'buss'\. Installed: .*bus, .*plain.*\. "
    r"Did you mean 'bus'\?"
)
ROOT = Path(__file__).parents[3]
PLUGIN = '[plugins]\nlocal = ["tests.core.queues.bus_plugin"]\n'
TEXT = f"""{PLUGIN}[broker]
url = "bus://"
[queues.bus]
kind = "bus"
loud = true
memory = "1m"
concurrency = 3
[queues.mail]
rate_limit = "5/s"
[tasks."shop:*"]
copies = 2
priority = 3
[tasks.pay]
stop = "north"
copies = 4
"""


@pytest.fixture
def settings(folder: Path) -> Callable[..., Configuration]:
    def from_text(text: str, **environ: str) -> Configuration:
        (folder / "camora.toml").write_text(text)
        return read(folder / "camora.toml", environ=environ)

    return from_text


@pytest.fixture
def problems(settings: Callable[..., Configuration]) -> Callable[[str], list[str]]:
    def of(text: str) -> list[str]:
        with pytest.raises(SettingsError) as error:
            settings(text)
        return [problem.removeprefix("camora.toml:") for problem in error.value.problems]

    return of


def app_of(folder: Path, text: str) -> Camora:
    (folder / "camora.toml").write_text(text)
    return Camora.from_toml(folder / "camora.toml")


# Reading


async def test_a_kind_and_its_settings_are_read_into_its_class(folder: Path) -> None:
    app = app_of(folder, TEXT)
    assert app.queues == (BusQueue("bus", True, 60.0, concurrency=3), Queue("mail", rate_limit="5/s"))

    @app.task(queue="bus")
    async def hear() -> None: ...

    async with app:
        await hear.dispatch()
        assert type(app.broker).__name__ == "BusBroker"
        assert app.broker.told == [app.queues]  # type: ignore[attr-defined]


def test_variables_and_references_are_read_as_everywhere(settings: Callable[..., Configuration]) -> None:
    text = f'{PLUGIN}[queues.bus]\nkind = "${{KIND}}"\nmemory = {{ env = "MEMORY" }}\n'
    found = settings(text, KIND="bus", MEMORY="2m", CAMORA_QUEUES__BUS__LOUD="true")
    assert found.queues == {"bus": BusQueue("bus", True, 120.0)}


def test_a_queue_of_the_file_and_another_one_of_the_code_are_told_with_their_places(folder: Path) -> None:
    app = app_of(folder, TEXT)
    with pytest.raises(ConfigurationError) as error:
        app.task(name="f", queue=BusQueue("bus"))(lambda: None)
    assert str(error.value) == (
        "queue 'bus' is declared twice: BusQueue('bus', concurrency=3, loud=True, memory=60.0) in camora.toml:5:9, and "
        "BusQueue('bus') in task 'f'. Declare it once, and give its name, 'bus', elsewhere"
    )
    app.task(name="g", queue=BusQueue("bus", True, 60.0, concurrency=3))(lambda: None)  # the very same is none


async def test_options_in_the_file_reach_the_broker(folder: Path) -> None:
    app = app_of(folder, TEXT)

    @app.task(name="shop:list")
    async def listed() -> None: ...

    @app.task(name="shop:own", copies=1)
    async def own() -> None: ...

    @app.task(name="pay", stop="south", copies=1)
    async def pay() -> None: ...

    async with app:
        for task in (listed, own, pay):
            await task.dispatch()
        sent = app.broker.published  # type: ignore[attr-defined]
    assert [envelope.options for envelope in sent] == [{"copies": 2}, {"copies": 1}, {"stop": "north", "copies": 4}]
    assert [envelope.priority for envelope in sent] == [3, 3, 0]


async def test_what_the_file_asks_of_a_broker_that_has_it_not_is_refused(folder: Path) -> None:
    app = app_of(folder, f'{PLUGIN}[queues.bus]\nkind = "bus"\n')
    with pytest.raises(UnsupportedCapability, match=r"queue 'bus' is a BusQueue, .*MemoryBroker\('memory://', new\)"):
        await app.dispatch("anything")
    app = app_of(folder, f"{PLUGIN}[tasks.pay]\ncopies = 2\n")
    app.task(name="pay")(lambda: None)
    with pytest.raises(UnsupportedCapability, match="task 'pay': .* does not know the option 'copies'"):
        await app.dispatch("other")


# Mistakes


def test_mistakes_are_told_with_place_and_nearest_name(problems: Callable[[str], list[str]]) -> None:
    text = f"""{PLUGIN}[queues.a]
kind = "buss"
[queues.b]
kind = "bus"
laud = true
memory = "soon"
[queues.c]
loud = true
[queues.d]
kind = 5
[queues.e]
kind = "bus"
name = "other"
concurrency = 0
[queues."f g"]
kind = "bus"
loud = 3
[tasks.one]
copies = "many"
[tasks.two]
copies = 0
[tasks.three]
copeis = 1
"""
    first, *others = problems(text)
    assert re.fullmatch(UNKNOWN, first)
    assert others == [
        "7:1: queues.b.laud: unknown setting: did you mean 'loud'?",
        "8:1: queues.b.memory: expected a duration such as \"30s\", found 'soon'",
        "10:1: queues.c.loud: unknown setting: known are concurrency, kind, rate_limit",
        "12:1: queues.d.kind: expected a text, found 5",
        "15:1: queues.e.name: unknown setting: known are concurrency, kind, loud, memory, rate_limit",
        "16:1: queues.e.concurrency: a whole number from 1 to 1000000, found 0",
        "17:9: queues.\"f g\": queue name 'f g': ' ' is not allowed in it",
        '19:1: queues."f g".loud: expected true or false, found 3',
        "21:1: tasks.one.copies: expected a whole number, found 'many'",
        "23:1: tasks.two.copies: expected 1 or more, found 0",
        "25:1: tasks.three.copeis: unknown setting: did you mean 'copies'?",
    ]


# Showing


def test_the_settings_in_force_show_the_kind_and_its_defaults(settings: Callable[..., Configuration]) -> None:
    shown = as_data(effective(settings(TEXT)))
    assert shown["queues"] == {
        "bus": {"kind": "bus", "concurrency": 3, "rate_limit": None, "loud": True, "memory": "1m"},
        "mail": {"kind": "plain", "concurrency": None, "rate_limit": "5/s"},
    }
    assert shown["tasks"] == {"shop:*": {"copies": 2, "priority": 3}, "pay": {"stop": "north", "copies": 4}}
    text = as_toml(effective(settings(TEXT)))
    assert '[queues.mail]\nkind = "plain"\nrate_limit = "5/s"' in text
    assert settings(text).queues == settings(TEXT).queues


# The schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Of what is installed, and the bus."""
    return schema_of(catalog_with(bus_plugin))


def taplo(folder: Path, schema: dict[str, Any], text: str) -> str:
    """What taplo finds wrong with a text; empty when nothing is."""
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "given.toml").write_text(text)
    done = subprocess.run(
        ["taplo", "check", "--schema", (folder / "schema.json").as_uri(), "given.toml"],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (TEXT, ""),
        ("[queues.bus]\nconcurrency = 2\n", ""),
        ("[queues.bus]\nkind = 'plain'\n", ""),
        ("[queues.bus]\nkind = '${KIND}'\n", ""),
        ("[profiles.prod.queues.bus]\nkind = 'bus'\nloud = false\n", ""),
        ("[queues.bus]\nkind = 'buss'\n", "kind"),
        ("[queues.bus]\nkind = 'bus'\nlaud = true\n", "laud"),
        ("[queues.bus]\nkind = 'bus'\nloud = 3\n", "loud"),
        ("[queues.bus]\nname = 'bus'\n", "name"),
        ("[tasks.pay]\ncopies = 'x'\n", "copies"),
        ("[tasks.pay]\ncopeis = 1\n", "copeis"),
    ],
    ids=["all", "no-kind", "plain", "variable", "profile", "kind", "key", "value", "name", "option", "stray"],
)
def test_editors_know_kinds_and_options(folder: Path, schema: dict[str, Any], text: str, wrong: str) -> None:
    answer = taplo(folder, schema, text)
    assert wrong in answer
    assert bool(answer) is bool(wrong), answer


def test_the_schema_tells_what_they_are(schema: dict[str, Any]) -> None:
    queue = schema["properties"]["queues"]["additionalProperties"]["properties"]
    assert set(queue) == {"kind", "concurrency", "rate_limit", "loud", "memory"}
    assert queue["loud"]["description"] == "Whether it is announced."
    assert sorted(queue["kind"]["anyOf"][0]["enum"]) == ["bus", "plain"]
    task = schema["properties"]["tasks"]["additionalProperties"]["properties"]
    assert task["copies"] == {"$ref": "#/$defs/whole", "description": "how many stores must have it"}
    assert "copies" not in schema_of(plugins.load(plugins.discover({}), disable=["bus"]))["properties"]["tasks"]


# Plugins


def kinds(*offered: Any) -> SimpleNamespace:
    return SimpleNamespace(camora_queue_kinds=hookimpl(lambda: list(offered)))


def findings(module: Any) -> list[str]:
    local = Source(name="mine", distribution="local", version="", load=lambda: module)
    return [finding.text for finding in check(sources=[local])]


@pytest.mark.parametrize("settings", [None, dict, BusBroker], ids=["none", "dict", "broker"])
def test_a_kind_without_a_class_of_its_own_is_refused(settings: Any) -> None:
    with pytest.raises(PluginLoadError, match=r"the settings of 'odd' are .*; give the class of such queues, derived"):
        plugins.load([source(kinds(Provider("odd", lambda made: made.settings, settings=settings)))])


def test_two_plugins_cannot_offer_the_same_kind() -> None:
    provider = Provider("plain", lambda made: made.settings, settings=BusQueue)
    with pytest.raises(ConfigurationError, match="both offer the name 'plain'"):
        plugins.load([*plugins.discover({}), source(kinds(provider))])


def test_checking_a_plugin_looks_at_kinds_and_options() -> None:
    from tests.core.queues import bus_plugin

    assert findings(bus_plugin) == []
    sound = Provider("sound", lambda made: made.settings, settings=BusQueue, help="sound")
    assert findings(kinds(sound)) == []
    wrong = Provider("wrong", lambda made: "no queue", settings=BusQueue)
    assert findings(kinds(wrong)) == [
        "camora_queue_kinds, 'wrong': has no help, the line that lists show beside its name",
        "camora_queue_kinds, 'wrong': makes a str, which is no Queue",
    ]
    options = [TaskOption("a", Any), TaskOption("b", int, help="b")]
    assert findings(SimpleNamespace(camora_task_options=hookimpl(lambda: options))) == [
        "camora_task_options, 'a': has no help, which editors show beside it",
        "camora_task_options, 'a': has no type of its own, so no schema can say it",
    ]


# The command line


def camora(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CAMORA_")}
    return forked.run(
        [sys.executable, "-m", "camora", *words],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_commands_know_them(folder: Path) -> None:
    (folder / "camora.toml").write_text(TEXT)
    listed = json.loads(camora(folder, "plugins", "--json").stdout)
    [info] = [info for info in listed["plugins"] if info["name"] == "tests.core.queues.bus_plugin"]
    assert info["provides"]["camora_queue_kinds"] == ["bus"]
    assert info["provides"]["camora_task_options"] == ["copies", "stop"]
    schema = json.loads(camora(folder, "config", "schema").stdout)
    assert "loud" in schema["properties"]["queues"]["additionalProperties"]["properties"]
    assert camora(folder, "config", "check").returncode == 0


def test_a_worker_that_cannot_serve_a_queue_says_so_and_ends(folder: Path) -> None:
    (folder / "camora.toml").write_text(f'{PLUGIN}[queues.bus]\nkind = "bus"\n[broker]\nurl = "sqlite:///jobs.db"\n')
    (folder / "shop.py").write_text("from camora import Camora\napp = Camora.from_toml()\n")
    for words in (["worker"], ["worker", "--processes", "2"], ["dispatch", "anything", "--unchecked"]):
        done = camora(folder, *words, "--app", "shop:app")
        assert done.returncode in (1, 2), (words, done.stdout, done.stderr)
        assert "queue 'bus' is a BusQueue, a kind of queue that SqlBroker(" in done.stderr, words
        assert "Traceback" not in done.stderr, words
    assert not (folder / "jobs.db").exists()
