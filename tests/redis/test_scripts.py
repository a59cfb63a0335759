"""Scripts are sent with what they need of the common parts, and with nothing else."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from camora_redis.scripting import script

from tests.servers.fixtures import private

_SCRIPTS = resources.files("camora_redis") / "scripts"
_NAMES = sorted(one.name.removesuffix(".lua") for one in _SCRIPTS.iterdir() if one.name != "common.lua")


def defined(text: str, begin: str = "") -> set[str]:
    """The names that stand behind `local`; behind `begin` of a line, if that is given."""
    found = set(re.findall(rf"{begin}\blocal function (\w+)", text, re.MULTILINE))
    for names in re.findall(rf"{begin}\blocal (?!function\b)([\w, ]+)", text, re.MULTILINE):
        found |= {name.strip() for name in names.split(",")}
    return found


def used(text: str, names: set[str]) -> set[str]:
    """Which of these names stand outside of texts, comments and the fields of tables."""
    bare = re.sub(r"--[^\n]*|'[^'\n]*'", "", text)
    return {name for name in names if re.search(rf"(?<![\w.]){name}\b", bare)}


@pytest.mark.parametrize("name", _NAMES)
def test_a_script_has_all_that_it_names(name: str) -> None:
    common = defined((_SCRIPTS / "common.lua").read_text(), "^")
    text = script(name).text
    assert used(text, common) <= defined(text)


def test_a_script_has_nothing_that_it_does_not_need() -> None:
    text = script("publish_one").text
    assert "local function helper(" in text
    assert "local function record(" not in text
    assert "--" not in text
    assert "'}:moving'" in text  # what has no name belongs to all


@pytest.mark.parametrize("kind", ["redis-6.2", "redis-8", "valkey-9"])
def test_servers_know_each_by_its_digest(kind: str) -> None:
    with private(kind) as server, server.connection() as connection:
        for name in _NAMES:
            what = script(name)
            assert connection.call("SCRIPT", "LOAD", what.text) == what.digest, name
