"""A plugin of every kind: the table of each is read into its own class, and what it makes has the values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.config import Configuration, app_arguments
from camora.errors import SettingsError

Read = Callable[..., Configuration]
Problems = Callable[..., list[str]]

PLUGIN = '''
from typing import Literal
import attrs
from camora import Middleware, Provider, hookimpl
from camora.builtin.json_codec import JsonCodec
from camora.builtin.memory import make_broker, make_results
from camora.builtin.triggers import Every
from camora.interfaces import Observer, PoolSettings
from camora.settings import Duration, Secret, Size


@attrs.frozen(kw_only=True)
class StoreSettings:
    password: Secret
    """What opens it."""
    timeout: Duration = 5.0
    chunk: Size = 1024
    mode: Literal["fast", "safe"] = "safe"


@attrs.frozen(kw_only=True)
class CodecSettings:
    level: int = attrs.field(default=3)

    @level.validator
    def _check(self, attribute, value):
        if not 0 <= value <= 9:
            raise ValueError(f"level = {value!r}: must be 0 to 9")


@attrs.frozen(kw_only=True)
class Limits:
    soft: int = 1
    hard: int = 2

    def __attrs_post_init__(self):
        if self.soft > self.hard:
            raise ValueError("soft must not be more than hard")


@attrs.frozen(kw_only=True)
class AuditSettings:
    """Where to, and how much."""

    target: str
    limits: Limits = Limits()
    labels: dict[str, str] = {}


@attrs.frozen(kw_only=True)
class SlotSettings(PoolSettings):
    kind: str = "slots"
    slots: int = 4


@attrs.frozen(kw_only=True)
class RetrySettings:
    pause: Duration = 1.0


def keep(made, thing):
    object.__setattr__(thing, "made_from", made)
    return thing


class Audit(Middleware):
    def __init__(self, made):
        self.made_from = made


class Watch(Observer):
    def __init__(self, made):
        self.made_from = made

    async def observe(self, events):
        pass


class Own(JsonCodec):
    name = "own"


def policy(made):
    return lambda job, exception: made.settings.pause


@hookimpl
def camora_brokers():
    return [Provider("own", lambda made: keep(made, make_broker(attrs.evolve(made, url="memory://"))),
                     settings=StoreSettings, schemes=("own",))]


@hookimpl
def camora_result_backends():
    return [Provider("own", lambda made: keep(made, make_results(attrs.evolve(made, url="memory://"))),
                     settings=StoreSettings, schemes=("own",))]


@hookimpl
def camora_codecs():
    return [Provider("own", lambda made: keep(made, Own()), settings=CodecSettings)]


@hookimpl
def camora_retry_policies():
    return [Provider("steady", policy, settings=RetrySettings)]


@hookimpl
def camora_pools():
    return [Provider("slots", lambda made: None, settings=SlotSettings)]


@hookimpl
def camora_middleware():
    return [Provider("audit", Audit, settings=AuditSettings), Provider("bare", lambda made: Named("bare")),
            Provider("alpha", lambda made: Named("alpha"))]


class Named(Middleware):
    def __init__(self, name):
        self.called = name


@hookimpl
def camora_observers():
    return [Provider("audit", Watch, settings=AuditSettings)]


@hookimpl
def camora_triggers():
    return [Provider("lazy", lambda made: Every(made.settings.pause), settings=RetrySettings)]
'''

TEXT = """
[plugins]
local = ["own_plugin"]
[broker]
url = "own://here"
password = { env = "PASSWORD" }
timeout = "1m"
chunk = "4KiB"
[results]
url = "own://there"
ttl = "2h"
password = "open sesame"
mode = "fast"
[codec]
use = "own"
level = 7
[retry]
use = "steady"
pause = "3s"
[pools.wide]
kind = "slots"
slots = 9
timeout = "10s"
[middleware]
use = ["audit"]
[observers]
use = ["audit"]
[audit]
target = "${WHERE:-stdout}"
limits = { soft = 1, hard = 5 }
labels.team = "shop"
[[schedules]]
key = "lazy"
task = "shop:nap"
trigger = { use = "lazy", pause = "2m" }
"""


@pytest.fixture(autouse=True)
def plugin(folder: Path) -> None:
    (folder / "own_plugin.py").write_text(PLUGIN)


def test_every_table_reaches_what_the_plugin_makes(settings: Read) -> None:
    found = settings(TEXT, PASSWORD="hunter2")
    made = app_arguments(found)
    broker, results = made["broker"].made_from, made["results"].made_from
    assert (broker.url, broker.settings.password, broker.settings.timeout) == ("own://here", "hunter2", 60.0)
    assert (broker.settings.chunk, broker.settings.mode) == (4096, "safe")
    assert (results.url, results.settings.password, results.settings.mode) == ("own://there", "open sesame", "fast")
    assert found.settings.result_ttl == 7200
    assert made["codec"].made_from.settings.level == 7
    assert made["retry_policy"](None, None) == 3.0
    assert (found.pools["wide"].slots, found.pools["wide"].timeout) == (9, 10.0)  # type: ignore[attr-defined]
    audit = made["middleware"][0].made_from.settings
    assert (audit.target, audit.limits.hard, audit.labels) == ("stdout", 5, {"team": "shop"})
    assert made["observers"][0].made_from.settings is audit  # one table, read once
    assert found.schedules[0].trigger.describe()["seconds"] == 120
    app = Camora(**made)
    assert app.broker is made["broker"]
    assert [link.name for link in app.chain() if link.origin == "app"] == ["Audit"]


def test_mistakes_in_the_tables_of_plugins(problems: Problems) -> None:
    text = """[plugins]
local = ["own_plugin"]
[broker]
url = "own://here"
timeout = "soon"
mode = "saef"
[codec]
use = "own"
level = 12
[retry]
use = "steady"
puase = 1
max_tries = 3
[pools.wide]
kind = "slots"
slots = "many"
[middleware]
use = ["audit"]
[audit]
target = 5
limits = { soft = 2, hard = 1, medium = 7 }
labels = { team = 3 }
tagret = "x"
"""
    assert problems(text) == [
        "3:2: broker.password: is missing: expected a text",
        "5:1: broker.timeout: expected a duration such as \"30s\", found 'soon'",
        "6:1: broker.mode: expected one of 'fast', 'safe', found 'saef': did you mean 'safe'?",
        "9:1: codec.level: must be 0 to 9, found 12",
        "12:1: retry.puase: unknown setting: did you mean 'pause'?",
        "13:1: retry.max_tries: unknown setting: known are pause, use",
        "16:1: pools.wide.slots: expected a whole number, found 'many'",
        "20:1: audit.target: expected a text, found 5",
        "21:32: audit.limits.medium: unknown setting: known are hard, soft",
        "22:12: audit.labels.team: expected a text, found 3",
        "23:1: audit.tagret: unknown setting: did you mean 'target'?",
    ]


def test_what_a_class_refuses_as_a_whole_is_told_at_its_table(problems: Problems) -> None:
    text = '[plugins]\nlocal = ["own_plugin"]\n[audit]\ntarget = "x"\nlimits = { soft = 2, hard = 1 }\n'
    assert problems(text) == ["5:1: audit.limits: soft must not be more than hard"]


def test_a_table_that_needs_a_key_may_be_left_out_with_its_plugin(settings: Read, problems: Problems) -> None:
    plugins = '[plugins]\nlocal = ["own_plugin"]\n'
    assert settings(plugins).middleware == ()
    assert problems(f'{plugins}[middleware]\nuse = ["audit"]\n') == ["1:1: audit.target: is missing: expected a text"]
    assert problems(f"{plugins}[audit]\n") == ["3:2: audit.target: is missing: expected a text"]


def names(found: Configuration) -> list[Any]:
    made = app_arguments(found)["middleware"]
    return [getattr(one, "called", type(one).__name__) for one in made]


def test_the_order_of_middleware_is_that_of_the_list(folder: Path, settings: Read) -> None:
    (folder / "shop_links.py").write_text(
        "from camora import Middleware\nclass Mine(Middleware): ...\nmade = Mine()\nother = 5\n"
    )
    text = '[plugins]\nlocal = ["own_plugin"]\n[audit]\ntarget = "x"\n[middleware]\nuse = %s\n'
    assert names(settings(text % '["bare", "shop_links:Mine", "audit"]')) == ["bare", "Mine", "Audit"]
    assert names(settings(text % '["shop_links:made", "...", "bare"]')) == ["Mine", "alpha", "Audit", "bare"]
    assert names(settings(text % '["bare", "..."]')) == ["bare", "alpha", "Audit"]
    assert names(settings(text % "[]")) == []
    with pytest.raises(SettingsError) as error:
        names(settings(text % '["shop_links:Mien", "shop_links:other", "nothing:here"]'))
    one, two, three = error.value.problems
    assert one.startswith("camora.toml:6:8: middleware.use[0]: ")
    assert "did you mean 'Mine'?" in one
    assert two == "camora.toml:6:27: middleware.use[1]: middleware 'shop_links:other': is no Middleware and makes none"
    assert "there is no module 'nothing'" in three


def test_what_users_code_raises_is_told_at_its_place(folder: Path, settings: Read) -> None:
    (folder / "shop_links.py").write_text(
        "from camora import Middleware\nclass Mine(Middleware):\n    def __init__(self): raise OSError('no disk')\n"
    )
    with pytest.raises(SettingsError) as error:
        app_arguments(settings('[middleware]\nuse = ["shop_links:Mine"]\n'))
    assert str(error.value) == "camora.toml:2:8: middleware.use[0]: making it raised OSError: no disk"


def test_plugins_can_be_switched_off(settings: Read, problems: Problems) -> None:
    for key in ("disable", "disabled"):
        for name in ("sql", "camora-sql"):
            found = settings(f'[plugins]\n{key} = ["{name}", "camora-not-installed"]\n')
            assert [info.state for info in found.catalog.plugins if info.name == "sql"] == ["disabled"]
    [problem] = problems('[broker]\nurl = "sqlite:///x.db"\n[plugins]\ndisable = ["sql"]\n')
    assert "2:1: broker.url: no plugin offers the URL scheme 'sqlite'" in problem


def test_a_local_plugin_that_does_not_import_is_a_mistake_beside_the_others(folder: Path, problems: Problems) -> None:
    (folder / "broken_plugin.py").write_text("import no_such_library\n")
    first, second = problems('[plugins]\nlocal = ["broken_plugin"]\n[worker]\nlease = 0\n')
    assert first.startswith("1:2: plugins: the local plugin 'broken_plugin' cannot be imported: ModuleNotFoundError")
    assert second == "4:1: worker.lease: must be more than 0, found 0"


def test_signing_wraps_the_codec(settings: Read) -> None:
    key = "k" * 32
    made = app_arguments(settings(f'[codec]\nuse = "msgpack"\n[signing]\nkey = "{key}"\n'))
    assert type(made["codec"]).__name__ == "SignedCodec"
    assert made["codec"].inner.name == "msgpack"
    assert app_arguments(settings(""))["codec"].name == "json"
