"""Loading plugins: what is wrong with one is said, with names, and harms only who uses it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from camora import Provider, hookimpl
from camora.errors import PluginConflict, PluginLoadError, UnknownPlugin
from camora.plugins import Source, discover, load, local


def source(name: str, module: Any, distribution: str = "") -> Source:
    return Source(name=name, distribution=distribution or f"camora-{name}", version="1.0", load=lambda: module)


def broken(name: str) -> Source:
    def fail() -> Any:
        raise ImportError("No module named 'nats'")

    return Source(name=name, distribution=f"camora-{name}", version="1.0", load=fail)


def brokers(*providers: Any) -> Any:
    def camora_brokers() -> Any:
        return list(providers)

    return SimpleNamespace(camora_brokers=hookimpl(camora_brokers))


NATS = Provider("nats", lambda made: "a broker", schemes=("nats", "tls+nats"))


def test_the_built_in_parts_enter_by_the_same_door() -> None:
    catalog = load()
    [builtin] = [info for info in catalog.plugins if info.name == "builtin"]
    assert builtin.distribution == "camora"
    assert builtin.state == "active"
    assert builtin.provides["camora_pools"] == ("async", "sync", "thread", "process")


def test_a_catalog_finds_by_name_and_scheme_and_cannot_be_changed() -> None:
    catalog = load([source("nats", brokers(NATS))])
    assert catalog.provider("camora_brokers", "nats") is NATS
    assert catalog.for_url("camora_brokers", "tls+nats://host") is NATS
    with pytest.raises(TypeError):
        catalog.items["camora_brokers"]["other"] = NATS  # type: ignore[index]


def test_an_unknown_scheme_says_what_to_install() -> None:
    with pytest.raises(UnknownPlugin, match=r"'redis'.*Try: pip install camora-redis"):
        load([source("nats", brokers(NATS))]).for_url("camora_brokers", "redis://localhost")


def test_a_misspelt_scheme_says_the_nearest() -> None:
    with pytest.raises(UnknownPlugin, match="Did you mean 'nats'"):
        load([source("nats", brokers(NATS))]).for_url("camora_brokers", "nat://localhost")


def test_a_broken_plugin_harms_only_who_uses_it() -> None:
    catalog = load([broken("kafka"), source("nats", brokers(NATS))])
    assert catalog.provider("camora_brokers", "nats") is NATS
    assert [info.state for info in catalog.plugins] == ["broken", "active"]
    with pytest.raises(PluginLoadError, match=r"kafka \(camora-kafka 1.0\): ImportError: No module named 'nats'"):
        catalog.for_url("camora_brokers", "kafka://localhost")


def test_two_plugins_of_one_name_are_refused_naming_both() -> None:
    with pytest.raises(PluginConflict, match="camora-nats.*other-nats"):
        load([source("nats", brokers(NATS)), source("nats", brokers(), "other-nats")])


@pytest.mark.parametrize(
    "other", [Provider("nats", lambda made: None), Provider("other", lambda made: None, schemes="nats")]
)
def test_two_offers_of_one_name_or_scheme_are_refused_naming_both(other: Any) -> None:
    with pytest.raises(PluginConflict, match=r"one \(camora-one 1.0\) and two \(camora-two 1.0\)"):
        load([source("one", brokers(NATS)), source("two", brokers(other))])


def test_disabled_plugins_are_not_imported() -> None:
    catalog = load([broken("kafka")], disable=["camora-kafka"])
    assert [info.state for info in catalog.plugins] == ["disabled"]


def test_an_unknown_hook_is_refused_with_the_nearest() -> None:
    def camora_broker() -> Any:
        return []

    with pytest.raises(PluginLoadError, match="unknown hook 'camora_broker': did you mean camora_brokers"):
        load([source("nats", SimpleNamespace(camora_broker=hookimpl(camora_broker)))])


@pytest.mark.parametrize("result", [{"nats": NATS}, ["nats"], NATS, [SimpleNamespace(name="nats")]])
def test_results_of_hooks_are_checked(result: Any) -> None:
    def camora_brokers() -> Any:
        return result

    with pytest.raises(PluginLoadError, match="nats.*camora_brokers returned"):
        load([source("nats", SimpleNamespace(camora_brokers=hookimpl(camora_brokers)))])


def test_arguments_that_a_hook_does_not_have_are_refused() -> None:
    def camora_brokers(app: Any) -> Any:
        return []

    with pytest.raises(PluginLoadError, match="app"):
        load([source("nats", SimpleNamespace(camora_brokers=hookimpl(camora_brokers)))])


def test_another_hook_api_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="built for hook API 99"):
        load([source("nats", SimpleNamespace(CAMORA_API=99))])


def test_a_misspelt_setting_of_a_provider_is_refused_with_the_nearest() -> None:
    from camora.errors import SettingsError

    with pytest.raises(SettingsError, match="unknown setting 'worker': did you mean 'workers'"):
        load().provider("camora_pools", "thread").make(settings={"kind": "thread", "worker": 3})


def test_a_conflict_where_nobody_is_strict_makes_the_second_broken_and_offers_nothing_of_it() -> None:
    other = brokers(Provider("other", lambda made: None), Provider("more", lambda made: None, schemes="nats"))
    catalog = load([source("one", brokers(NATS)), source("two", other)], strict=False)
    assert [(info.name, info.state) for info in catalog.plugins] == [("one", "active"), ("two", "broken")]
    assert "both offer the scheme 'nats'" in catalog.plugins[1].why
    assert list(catalog.items["camora_brokers"]) == ["nats"]


def test_one_of_two_plugins_of_one_name_can_be_disabled() -> None:
    catalog = load([source("nats", brokers(), "other-nats"), source("nats", brokers(NATS))], disable=["other-nats"])
    assert [info.state for info in catalog.plugins] == ["disabled", "active"]


def test_a_hook_that_raises_is_named() -> None:
    def camora_brokers() -> Any:
        raise KeyError("oops")

    with pytest.raises(PluginLoadError, match=r"nats \(camora-nats 1.0\): camora_brokers raised KeyError: 'oops'"):
        load([source("nats", SimpleNamespace(camora_brokers=hookimpl(camora_brokers)))])


LOCAL = """\
from camora import Provider, hookimpl


@hookimpl
def camora_retry_policies():
    return [Provider("mine", lambda made: None, help="mine")]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return tmp_path


def test_the_environment_names_local_plugins(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"local_{uuid4().hex}"
    (here / f"{name}.py").write_text(LOCAL)
    monkeypatch.setenv("CAMORA_PLUGINS", f" {name} ,")
    catalog = load([*discover(), local(name)])
    [info] = [info for info in catalog.plugins if info.name == name]
    assert (info.distribution, info.state, info.api) == ("local", "active", 1)
    assert info.provides == {"camora_retry_policies": ("mine",)}
    assert "camora" in [info.distribution for info in load().plugins]


def test_a_local_plugin_that_does_not_import_was_asked_for_and_is_an_error(here: Path) -> None:
    sources = discover({"CAMORA_PLUGINS": "no_such_module_here"})
    with pytest.raises(PluginLoadError, match="'no_such_module_here' cannot be imported: ModuleNotFoundError"):
        load(sources)
    assert load(sources, strict=False).plugins[-1].state == "broken"
    assert load(sources, disable=["no_such_module_here"]).plugins[-1].state == "disabled"
