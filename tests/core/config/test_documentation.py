"""The page on settings: its TOML is right, and it tells of every key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import plugins
from camora.config import Configuration, app_arguments
from camora.config.schema import schema_of
from camora.errors import SettingsError

Read = Callable[..., Configuration]

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
LINKS = "from camora import Middleware\nclass Audit(Middleware): ...\n"

EXAMPLE = """\
app = "shop.tasks:app"

[broker]
url = "redis://localhost:6379/0"
[results]
url = "redis://localhost:6379/1"
ttl = "1d"
[codec]
use = "json"
[retry]
max_tries = 5
mode = "exponential"
[worker]
processes = 2
concurrency = 100
lease = "30s"
shutdown_timeout = "30s"
[queues.mail]
concurrency = 5
rate_limit = "100/m"
[pools.heavy]
kind = "process"
workers = 2
timeout = "5m"
[middleware]
use = ["prometheus", "shop.links:Audit"]
[tasks."shop.tasks:*"]                 # options by task name or pattern
timeout = "30s"
[[schedules]]
key = "nightly"
task = "shop.tasks:report"
cron = "0 9 * * 1-5"
tz = "Europe/Paris"
[plugins]
disable = ["camora-sentry"]
[profiles.prod.broker]                 # CAMORA_PROFILE=prod, or --profile prod
url = "${REDIS_URL}"
"""


@pytest.fixture
def shop(folder: Path) -> Path:
    (folder / "shop").mkdir()
    (folder / "shop" / "links.py").write_text(LINKS)
    return folder


@pytest.mark.parametrize("text", BLOCKS, ids=range(len(BLOCKS)))
def test_every_block_of_toml_is_right(shop: Path, settings: Read, text: str) -> None:
    (shop / "broker_url").write_text("memory://\n")
    text = text.replace("/run/secrets/", "")
    keys = {"SHOP_KEY": "k" * 32, "SHOP_KEY_BEFORE": "j" * 32, "DATABASE": "memory://"}
    profiles = re.findall(r"\[profiles\.(\w+)", text)
    for profile in [None, *profiles]:
        app_arguments(settings(text, profile=profile, **keys))


def keys_of(table: dict[str, Any]) -> Iterator[str]:
    for name, inner in table.get("properties", {}).items():
        yield name
        inner = inner.get("items", inner)
        yield from keys_of(inner)
        values = inner.get("additionalProperties")
        yield from keys_of(values if isinstance(values, dict) else {})


def test_the_page_tells_of_every_key_of_the_core() -> None:
    told = set(re.findall(r"[\w.]+", " ".join(re.findall(r"`+[^`]+`+", PAGE))))
    told |= {part for name in told for part in name.split(".")}
    missing = set(keys_of(schema_of(plugins.load(disable=["amqp", "redis", "servicebus", "sql", "workflows"])))) - told
    calendar = {"seconds", "hours", "days", "months", "weeks"}  # in the page on schedules
    assert missing <= calendar


def test_names_that_are_not_installed_are_told_with_what_to_install(
    shop: Path, settings: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = plugins._installed()
    monkeypatch.setattr(plugins, "_installed", lambda: [one for one in installed if one.name != "servicebus"])
    with pytest.raises(SettingsError) as error:
        settings(EXAMPLE.replace("redis://", "servicebus://"), profile="prod", REDIS_URL="servicebus://:hunter2@db")
    broker, results, middleware = sorted(error.value.problems, key=lambda text: text.partition(": ")[2])
    assert broker.startswith("camora.toml:37:1: broker.url: no plugin offers the URL scheme 'servicebus' for brokers.")
    assert broker.endswith("Try: pip install camora-servicebus")
    assert middleware.startswith("camora.toml:6:1: results.url: ")
    assert results.startswith("camora.toml:26:8: middleware.use[0]: unknown middleware 'prometheus'")
    assert "hunter2" not in str(error.value)


def test_with_what_is_installed_the_same_file_is_read(shop: Path, settings: Read) -> None:
    text = EXAMPLE.replace("redis://localhost:6379/", "sqlite:///shop").replace('"prometheus", ', "")
    made = app_arguments(settings(text))
    assert [type(one).__name__ for one in made["middleware"]] == ["Audit"]
    assert made["worker"].processes == 2
    prod = settings(text, profile="prod", REDIS_URL="sqlite:///prod.db")
    assert prod.broker is not None
    assert prod.broker.url == "sqlite:///prod.db"
