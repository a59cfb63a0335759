"""`${VAR}`, `{ env = … }`, `{ file = … }`: read after TOML is, and secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.config import Configuration, app_arguments, read
from camora.errors import SettingsError

Read = Callable[..., Configuration]
Problems = Callable[..., list[str]]

KEY = "correct-horse-battery-staple-hunter2"


@pytest.mark.parametrize(
    ("text", "environ", "value"),
    [
        ("${WHO}", {"WHO": "shop"}, "shop"),
        ("my ${WHO}-${WHERE}", {"WHO": "shop", "WHERE": "eu"}, "my shop-eu"),
        ("${WHO:-nobody}", {}, "nobody"),
        ("${WHO:-nobody}", {"WHO": ""}, "nobody"),
        ("${WHO:-nobody}", {"WHO": "shop"}, "shop"),
        ("${WHO:-}", {}, ""),
        ("${WHO}", {"WHO": ""}, ""),
        ("${WHO:-http://a:80/?x=y}", {}, "http://a:80/?x=y"),
        ("$${WHO}", {"WHO": "shop"}, "${WHO}"),
        ("$WHO costs 5$", {"WHO": "shop"}, "$WHO costs 5$"),
        ("${WHO}", {"WHO": "${OTHER}", "OTHER": "x"}, "${OTHER}"),
    ],
)
def test_variables_stand_in_texts(settings: Read, text: str, environ: dict[str, str], value: str) -> None:
    assert settings(f'name = "{text}"', **environ).name == value


def test_variables_stand_for_other_values_too(settings: Read) -> None:
    text = """
    [worker]
    concurrency = "${COUNT}"
    lease = "${LEASE:-45s}"
    [results]
    enabled = "${KEEP}"
    [observers]
    use = "${SEE:-logging}"
    """
    found = settings(text, COUNT="7", KEEP="no")
    assert (found.worker.concurrency, found.worker.lease, found.results) == (7, 45.0, False)
    assert len(found.observers) == 1


@pytest.mark.parametrize("value", ['"\n[worker]\nprocesses = 9\n#', '", processes = 9, x = "', "{ env = 'HOME' }"])
def test_a_variable_cannot_bring_toml_along(settings: Read, value: str) -> None:
    found = settings('name = "${WHO}"\n', WHO=value)
    assert found.name == value
    assert found.worker.processes == 1


def test_missing_variables_are_mistakes(problems: Problems) -> None:
    text = 'name = "${WHO}"\napp = "${A}:${B}"\n[worker]\nprocesses = { env = "COUNT" }\nlease = "${x"\n'
    assert problems(text, A="shop") == [
        "1:1: name: variable 'WHO' is not set: set it, or write ${WHO:-default}",
        "2:1: app: variable 'B' is not set: set it, or write ${B:-default}",
        "4:1: worker.processes: variable 'COUNT' is not set",
        "5:1: worker.lease: expected ${NAME} or ${NAME:-default}, found '${' (a plain one is written $${)",
    ]


def test_a_value_may_be_that_of_a_variable_or_a_file(folder: Path, settings: Read) -> None:
    (folder / "secrets").mkdir()
    (folder / "secrets" / "key").write_text(f"{KEY}\n")
    text = """
    name = { env = "WHO" }
    [broker]
    url = { file = "secrets/url" }
    [signing]
    keys = [{ file = "secrets/key" }, { env = "OLD" }]
    [worker]
    concurrency = { env = "COUNT" }
    """
    (folder / "secrets" / "url").write_text("sqlite:///shop.db\r\n")
    found = settings(text, WHO="shop", OLD=KEY[::-1], COUNT="7")
    assert found.name == "shop"
    assert found.broker is not None
    assert found.broker.url == "sqlite:///shop.db"
    assert found.signing is not None
    assert found.signing.keys == (KEY, KEY[::-1])
    assert found.worker.concurrency == 7


def test_files_lie_beside_the_settings_not_in_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "camora.toml").write_text('name = { file = "name" }')
    (folder / "name").write_text("shop")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert read(environ={}).name == "shop"


def test_files_that_cannot_be_read_are_mistakes(folder: Path, problems: Problems) -> None:
    (folder / "binary").write_bytes(b"\xff")
    text = 'name = { file = "nothing" }\napp = { file = "binary" }\n[signing]\nkey = { file = "." }\n'
    assert problems(text) == [
        "1:1: name: file 'nothing' cannot be read: No such file or directory",
        "2:1: app: file 'binary' is not UTF-8 text",
        "4:1: signing.key: file '.' cannot be read: Is a directory",
    ]


def test_a_reference_is_replaced_not_merged(settings: Read) -> None:
    text = 'name = { env = "A" }\n[profiles.prod]\nname = { file = "name" }\n[profiles.dev]\nname = "plain"\n'
    assert settings(text, A="a").name == "a"
    assert settings(text, A="a", profile="dev").name == "plain"


SECRET = "hunter2-is-my-password"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ('[broker]\nurl = "sqlite://user:hunter2-is-my-password@host/"\nspeed = 1', {}),
        ('[broker]\nurl = "sqlite:///user:hunter2-is-my-password@host/"\nspeed = 1', {}),
        ('[broker]\nurl = "sqlite://user:so hunter2-is-my-password it is@host/"', {}),
        ('[broker]\nurl = "sqlite:user:hunter2-is-my-password@host/"', {}),
        ('[broker]\nurl = "user:hunter2-is-my-password@host/"', {}),
        ('[results]\nurl = "memory://x"\nttl = "a://user:hunter2-is-my-password@host/"', {}),
        ('[broker]\nurl = "nothing://user:hunter2-is-my-password@host/"', {}),
        ('[broker]\nurl = "nothing:hunter2-is-my-password"\ntoken = 5', {}),
        ('[broker]\nurl = { env = "URL" }', {"URL": SECRET}),
        ('[broker]\nurl = "${URL}"', {"URL": f"nothing://:{SECRET}@x"}),
        ('[signing]\nkey = "hunter2-is-my-password"', {}),
        ('[signing]\nkeys = "hunter2-is-my-password"', {}),
        ('[signing]\nkeys = ["hunter2-is-my-password", 5]', {}),
        ('[signing]\nkey = { env = "K" }\nmax_age = { env = "K" }', {"K": SECRET}),
        ("[signing]", {"CAMORA_SIGNING__KEY": SECRET}),
        ("[worker]\nlease = { env = 'K' }", {"K": SECRET}),
        ("[worker]\nprocesses = { env = 'K' }", {"K": SECRET}),
        ("[own]\npassword = 'hunter2-is-my-password'", {}),
        ("", {"CAMORA_BROKER__PASSWORD": SECRET}),
        ("", {"CAMORA_BROKER__URL": f"sqlit://u:{SECRET}@h/x"}),
        ("[signing]\nkey = { env = 'K' }\n[worker]\nlease = 'hunter2-is-my-password'", {"K": SECRET}),
    ],
)
def test_no_mistake_shows_a_secret(folder: Path, text: str, environ: dict[str, str]) -> None:
    (folder / "camora.toml").write_text(text)
    with pytest.raises(SettingsError) as error:
        app_arguments(read(environ=environ))
    assert SECRET not in str(error.value)
    assert SECRET not in repr(error.value.problems)


def test_no_repr_shows_a_secret(settings: Read) -> None:
    text = '[broker]\nurl = "sqlite:///x.db?token=hunter2"\n[signing]\nkey = { env = "K" }\n'
    found = settings(text, K=KEY)
    assert "hunter2" not in repr(found)
    assert KEY not in repr(found)
    assert KEY not in repr(found.signing)


def test_what_is_told_of_a_url_stays_readable(folder: Path) -> None:
    (folder / "camora.toml").write_text('[broker]\nurl = "sqlite://ada:hunter2@host/shop.db"\n')
    with pytest.raises(SettingsError) as error:
        app_arguments(read(environ={}))
    assert str(error.value).startswith("camora.toml:2:1: broker.url: ")
    assert "'sqlite://ada:***@host/shop.db' names a host" in str(error.value)
    assert "hunter2" not in str(error.value)
