"""Which file is read, and what a file that cannot be read says."""

from __future__ import annotations

from pathlib import Path

import pytest
from camora import Camora
from camora.config import find, read
from camora.errors import SettingsError


def test_the_nearest_file_upwards_is_found(folder: Path) -> None:
    deep = folder / "shop" / "orders"
    deep.mkdir(parents=True)
    assert find(deep) is None
    (folder / "camora.toml").touch()
    assert find(deep) == folder / "camora.toml"
    (folder / "shop" / "camora.toml").touch()
    assert find(deep) == folder / "shop" / "camora.toml"
    assert find() == folder / "camora.toml"


def test_a_pyproject_counts_only_with_its_table(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "camora.toml").touch()
    (inner / "pyproject.toml").write_text('[tool.other]\nuses = "camora"\n')
    assert find(inner) == folder / "camora.toml"
    (inner / "pyproject.toml").write_text('[tool.camora]\nname = "inner"\n')
    assert find(inner) == inner / "pyproject.toml"
    (inner / "camora.toml").touch()
    assert find(inner) == inner / "camora.toml"


def test_a_strangers_broken_pyproject_is_passed_over(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.other]\nwhat = camora"\n')
    assert find() is None
    (folder / "pyproject.toml").write_text('[tool.camora]\nname = "a\n')
    with pytest.raises(SettingsError, match=r"^pyproject\.toml:2:\d+: is no TOML: "):
        read()


def test_settings_may_stand_in_pyproject(folder: Path) -> None:
    text = '[project]\nname = "shop"\n\n[tool.camora]\nname = "kiosk"\n[tool.camora.worker]\nleese = 3\n'
    (folder / "pyproject.toml").write_text(text)
    with pytest.raises(SettingsError) as error:
        read(environ={})
    assert error.value.problems == ("pyproject.toml:7:1: worker.leese: unknown setting: did you mean 'lease'?",)
    (folder / "pyproject.toml").write_text(text.replace("leese", "lease"))
    found = read(environ={})
    assert (found.name, found.worker.lease) == ("kiosk", 3.0)


def test_a_pyproject_that_is_named_must_have_the_table(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "shop"\n')
    with pytest.raises(SettingsError, match=r"^pyproject\.toml: has no table \[tool\.camora\]$"):
        read(folder / "pyproject.toml")


def test_a_folder_stands_for_the_file_that_is_found_from_it(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "camora.toml").write_text('name = "here"')
    assert read(folder / "deep", environ={}).name == "here"
    (folder / "camora.toml").unlink()
    with pytest.raises(SettingsError, match=r"no camora\.toml in .*/deep or above it: camora init writes one"):
        read(folder / "deep")


def test_without_a_file_the_error_says_what_to_do(folder: Path) -> None:
    with pytest.raises(SettingsError, match="no camora.toml, nor pyproject.toml .* camora init writes one"):
        read()


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"^other\.toml: cannot be read: No such file or directory$"):
        read("other.toml")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'name = "a\n', "camora.toml:1:10: is no TOML: "),
        (b"[broker]\nurl = \n", "camora.toml:2:7: is no TOML: "),
        (b"[broker", "camora.toml:1:8: is no TOML: "),
        (b"name = 1\nname = 2\n", "camora.toml:2:9: is no TOML: "),
        (b"name = '\xff'", "camora.toml: is not UTF-8 text (byte 9)"),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(folder: Path, data: bytes, text: str) -> None:
    (folder / "camora.toml").write_bytes(data)
    with pytest.raises(SettingsError) as error:
        read()
    assert str(error.value).startswith(text)


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"], ids=["plain", "marked"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_places_are_exact_whatever_the_editor_writes(folder: Path, begin: bytes, end: bytes) -> None:
    lines = [b'name = "\xc3\xa4"  # a comment', b"[worker]", b"  lease = 1", b"  leese = 1"]
    (folder / "camora.toml").write_bytes(begin + end.join(lines))
    with pytest.raises(SettingsError, match=r"^camora\.toml:4:3: worker\.leese: "):
        read(environ={})


def test_the_environment_may_name_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "camora.toml").write_text('name = "here"')
    (folder / "other.toml").write_text('name = "there"')
    assert read(environ={"CAMORA_CONFIG": "other.toml"}).name == "there"
    assert read("camora.toml", environ={"CAMORA_CONFIG": "other.toml"}).name == "here"
    monkeypatch.setenv("CAMORA_CONFIG", str(folder / "other.toml"))
    assert Camora.from_toml().name == "there"
    with pytest.raises(SettingsError, match=r"^nothing\.toml: cannot be read: No such file"):
        read(environ={"CAMORA_CONFIG": "nothing.toml"})
