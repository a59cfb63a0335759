"""File, profile, variables: the later one wins, key by key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora.config import Configuration, read

Read = Callable[..., Configuration]
Problems = Callable[..., list[str]]

TEXT = """
name = "base"
[worker]
processes = 2
concurrency = 10
[queues.mail]
concurrency = 5
rate_limit = "100/m"
[observers]
use = ["logging"]
[profiles.prod]
name = "prod"
[profiles.prod.worker]
concurrency = 200
[profiles.prod.queues.mail]
rate_limit = "9/s"
[profiles.prod.observers]
use = []
[profiles.dev]
worker.lease = "5s"
"""


def test_a_profile_lies_over_the_file_key_by_key(settings: Read) -> None:
    base, prod = settings(TEXT), settings(TEXT, profile="prod")
    assert (base.name, base.worker.concurrency, base.profile) == ("base", 10, None)
    assert (prod.name, prod.worker.concurrency, prod.profile) == ("prod", 200, "prod")
    assert prod.worker.processes == 2
    assert prod.queues["mail"].concurrency == 5
    assert str(prod.queues["mail"].rate_limit) == "9/s"
    assert len(base.observers) == 1
    assert prod.observers == ()  # an array is replaced as a whole


def test_the_profile_is_that_of_the_call_else_of_the_environment(settings: Read) -> None:
    assert settings(TEXT, CAMORA_PROFILE="dev").worker.lease == 5.0
    assert settings(TEXT, CAMORA_PROFILE="dev", profile="prod").name == "prod"
    assert settings(TEXT, CAMORA_PROFILE="").profile is None


def test_an_unknown_profile_is_a_mistake_with_the_nearest_name(problems: Problems) -> None:
    assert problems(TEXT, profile="prd") == ["profile 'prd': is not in the file: did you mean 'prod'?"]
    text = "CAMORA_PROFILE: profile 'test': is not in the file: known are dev, prod"
    assert problems(TEXT, CAMORA_PROFILE="test") == [text]


def test_mistakes_in_a_profile_have_their_own_place(problems: Problems) -> None:
    text = "[worker]\nlease = 1\n[profiles.prod.worker]\nleese = 2\nlease = 0\n"
    assert problems(text, profile="prod") == [
        "4:1: worker.leese: unknown setting: did you mean 'lease'?",
        "5:1: worker.lease: must be more than 0, found 0",
    ]
    assert problems("[profiles]\nprod = 3\n", profile="prod") == ["2:1: profiles.prod: expected a table, found int"]


def test_variables_win_over_the_profile(settings: Read) -> None:
    found = settings(
        TEXT,
        profile="prod",
        CAMORA_WORKER__CONCURRENCY="7",
        CAMORA_NAME="from a variable",
        CAMORA_WORKER__LEASE="1m30s",
        CAMORA_QUEUES__MAIL__RATE_LIMIT="3/h",
        CAMORA_OBSERVERS__USE='["logging"]',
    )
    assert (found.name, found.worker.concurrency, found.worker.lease) == ("from a variable", 7, 90.0)
    assert str(found.queues["mail"].rate_limit) == "3/h"
    assert [choice.path for choice in found.observers] == [("observers", "use", 0)]


def test_variables_find_keys_that_are_written_otherwise(settings: Read) -> None:
    text = '[queues.Big-Mail]\nconcurrency = 1\n[tasks."shop.tasks:report"]\ntimeout = 1\n'
    found = settings(text, CAMORA_QUEUES__BIG_MAIL__CONCURRENCY="2", CAMORA_TASKS__SHOP_TASKS_REPORT__TIMEOUT="3s")
    assert {name: queue.concurrency for name, queue in found.queues.items()} == {"Big-Mail": 2}
    assert found.task_options == {"shop.tasks:report": {"timeout": 3.0}}


@pytest.mark.parametrize("text", ["12", "true", "[1]", "2020-01-01", "1_000", '"quoted', "a = b", "${HOME}", "x # y"])
def test_a_variable_for_a_text_is_that_text_whatever_it_looks_like(settings: Read, text: str) -> None:
    assert settings("", CAMORA_NAME=text).name == text


def test_lists_may_be_written_with_commas(settings: Read) -> None:
    found = settings("", CAMORA_PLUGINS__DISABLE="one, two,")
    assert found.source.data["plugins"]["disable"] == "one, two,"
    assert settings("", CAMORA_OBSERVERS__USE="logging").observers[0].path == ("observers", "use", 0)


def test_mistakes_in_variables_name_the_variable_and_come_last(problems: Problems) -> None:
    assert problems(
        "[worker]\nlease = 0\n",
        CAMORA_WORKER__CONCURENCY="1",
        CAMORA_BROKER__URL="nowhere",
        CAMORA_WORKER__PROCESSES="many",
        CAMORA_WORKER__="1",
    ) == [
        "2:1: worker.lease: must be more than 0, found 0",
        "CAMORA_BROKER__URL: broker.url: expected a URL such as 'sqlite:///camora.db', found 'nowhere'",
        "CAMORA_WORKER__CONCURENCY: worker.concurency: unknown setting: did you mean 'concurrency'?",
        "CAMORA_WORKER__PROCESSES: worker.processes: expected a whole number, found 'many'",
        "CAMORA_WORKER__: expected a name such as CAMORA_WORKER__LEASE, found an empty part",
    ]


def test_variables_that_contradict_each_other_are_a_mistake(problems: Problems) -> None:
    found = problems("", CAMORA_QUEUES__MAIL="3", CAMORA_QUEUES__MAIL__CONCURRENCY="3")
    assert "CAMORA_QUEUES__MAIL__CONCURRENCY: cannot be set beside another variable that sets what it is in" in found


def test_variables_without_a_section_are_the_users_own(settings: Read) -> None:
    assert settings("", CAMORA_COLOUR="red", CAMORA_PLUGINS="", PATH="/bin").name is None


def test_the_environment_of_the_process_is_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "camora.toml").touch()
    monkeypatch.setenv("CAMORA_NAME", "from the process")
    assert read().name == "from the process"
