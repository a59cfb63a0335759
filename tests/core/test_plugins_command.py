"""`camora plugins` and `camora new-plugin`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from camora.cli import main

APP = """\
from camora import Camora, Middleware


class Audit(Middleware):
    pass


app = Camora("memory://", middleware=[Audit()])
"""


FROM_FILE = """\
from camora import Camora

app = Camora.from_toml()
"""

PLUGIN = """\
from camora import Provider, hookimpl
from camora.builtin.json_codec import JsonCodec


class Plain(JsonCodec):
    name = "plain"


@hookimpl
def camora_codecs():
    return [Provider("plain", lambda _: Plain(), help="JSON under another name")]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_the_list_says_name_distribution_version_api_state_and_what_is_provided(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plugins", "--json"])
    [builtin] = [row for row in json.loads(capsys.readouterr().out)["plugins"] if row["name"] == "builtin"]
    assert builtin["distribution"] == "camora"
    assert builtin["version"]
    assert (builtin["api"], builtin["state"], builtin["why"]) == (1, "active", "")
    assert "memory" in builtin["provides"]["camora_brokers"]
    main(["plugins"])
    text = capsys.readouterr().out
    assert "builtin" in text
    assert "brokers: memory" in text


def test_a_plugin_that_cannot_be_used_is_listed_with_the_reason(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"local_{uuid4().hex}"
    (here / f"{name}.py").write_text("CAMORA_API = 99")
    monkeypatch.setenv("CAMORA_PLUGINS", f"{name},no_such_module_here")
    main(["plugins", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["plugins"]}
    assert (rows[name]["state"], rows["no_such_module_here"]["state"]) == ("broken", "broken")
    assert "built for hook API 99" in rows[name]["why"]
    assert "ModuleNotFoundError" in rows["no_such_module_here"]["why"]
    with pytest.raises(SystemExit) as ended:
        main(["plugins", "check", name])
    assert ended.value.code == 1
    assert f"✗ {name}: " in capsys.readouterr().out


def test_with_an_app_the_chain_is_listed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = f"shop_{uuid4().hex}"
    (here / f"{module}.py").write_text(APP)
    main(["plugins", f"{module}:app", "--json"])
    chain = json.loads(capsys.readouterr().out)["chain"]
    assert {"name": "Audit", "phase": "policy", "origin": "app"} in chain
    assert chain[-1]["name"] == "CallFunction"
    main(["plugins", f"{module}:app"])
    assert "Audit" in capsys.readouterr().out


def shop(here: Path, *, app: str = APP, plugins: str = "") -> str:
    """A folder with a camora.toml, an app, and a local plugin; the plugin's name."""
    name = f"local_{uuid4().hex}"
    (here / f"{name}.py").write_text(PLUGIN)
    (here / f"shop_{name}.py").write_text(app)
    (here / "camora.toml").write_text(f'app = "shop_{name}:app"\n[plugins]\nlocal = ["{name}"]\n{plugins}')
    return name


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main(["plugins", "--json", *arguments])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {**found, "plugins": {row["name"]: row for row in found["plugins"]}}


def test_what_camora_toml_says_of_plugins_and_app_is_followed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = shop(here, plugins='disabled = ["camora-sql"]', app=FROM_FILE)
    found = listed(capsys)
    assert (found["plugins"][name]["state"], found["plugins"][name]["distribution"]) == ("active", "local")
    assert found["plugins"][name]["provides"]["camora_codecs"] == ["plain"]
    assert found["plugins"]["sql"]["state"] == "disabled"
    assert "[plugins] disable" in found["plugins"]["sql"]["why"]
    assert found["chain"][-1]["name"] == "CallFunction"
    main(["plugins"])
    assert "codecs: plain" in capsys.readouterr().out
    main(["plugins", "check", name])
    assert f"{name}: " in capsys.readouterr().out


def test_an_app_that_does_not_start_is_no_reason_not_to_list(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = shop(here, app="import no_such_module_here\n")
    found = listed(capsys)
    assert found["plugins"][name]["state"] == "active"
    assert "imports 'no_such_module_here', which is not installed" in found["problem"]
    assert "chain" not in found
    main(["plugins"])
    told = capsys.readouterr()
    assert name in told.out
    assert "the chain cannot be told" in told.err
    with pytest.raises(SystemExit) as ended:
        main(["plugins", "--app", f"shop_{name}:app"])
    assert ended.value.code == 2


def test_a_local_plugin_that_does_not_import_is_listed_with_the_reason(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = shop(here, app=FROM_FILE)
    (here / f"{name}.py").write_text("import no_such_module_here")
    found = listed(capsys)
    assert found["plugins"][name]["state"] == "broken"
    assert "ModuleNotFoundError" in found["plugins"][name]["why"]
    assert name in found["problem"]


def test_checking_says_so_where_nothing_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plugins", "check", "builtin"])
    assert "builtin: nothing is wrong" in capsys.readouterr().out
    main(["plugins", "check", "camora", "--json"])
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_checking_what_is_not_there_is_a_mistake(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plugins", "check", "nats"])
    assert ended.value.code == 2
    assert "no plugin is called 'nats'" in capsys.readouterr().err


def test_a_new_plugin_is_written_and_says_what_to_do_next(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["new-plugin", "nats", "--kind", "broker"])
    said = capsys.readouterr().out
    assert "camora-nats is a broker plugin that works" in said
    assert "camora plugins check nats" in said
    assert (here / "camora-nats" / "src" / "camora_nats" / "broker.py").exists()
    for arguments in (["new-plugin", "nats", "--kind", "broker"], ["new-plugin", "nats", "--kind", "teapot"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
