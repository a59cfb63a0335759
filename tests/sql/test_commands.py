"""`camora sql …` without a URL: the databases of the app, each by the section that names it."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from camora_sql.schema import HEAD

from tests import forked
from tests.servers.fixtures import shared_postgres
from tests.sql.databases import new_database


def camora(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return forked.run(
        [sys.executable, "-m", "camora", *words],
        cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def revision(path: Path, prefix: str = "camora_") -> str:
    connection = sqlite3.connect(path)
    [(found,)] = connection.execute(f"SELECT version_num FROM {prefix}alembic_version").fetchall()
    connection.close()
    return str(found)


def test_all_databases_of_the_settings_are_made_and_named(tmp_path: Path) -> None:
    with new_database() as name:
        url = shared_postgres().url_of(name)
        (tmp_path / "camora.toml").write_text(
            f'[broker]\nurl = "{url}"\nprefix = "jobs_"\n'
            '[results]\nurl = "sqlite:///results.db"\n[outbox]\nurl = "sqlite:///shop.db?prefix=out_"\n'
        )
        before = camora(tmp_path, "sql", "status")
        assert (before.returncode, before.stderr) == (1, "")
        assert [line.split()[0] for line in before.stdout.splitlines()] == ["[broker]", "[results]", "[outbox]"]
        # Its hint is for a shell, and about these tables.
        hint = before.stdout.splitlines()[0]
        assert shlex.split(hint[hint.index("camora sql") :]) == [
            "camora",
            "sql",
            "migrate",
            "--url",
            f"{url}?prefix=jobs_",
        ]
        migrated = camora(tmp_path, "sql", "migrate")
        assert migrated.returncode == 0, migrated.stderr
        assert [line.split()[0] for line in migrated.stdout.splitlines()] == ["[broker]", "[results]", "[outbox]"]
        assert shared_postgres().sql("SELECT version_num FROM jobs_alembic_version", database=name)
        assert revision(tmp_path / "results.db") == revision(tmp_path / "shop.db", "out_") == HEAD
        after = camora(tmp_path, "sql", "status")
        assert (after.returncode, after.stdout.count("the newest")) == (0, 3)
        printed = camora(tmp_path, "sql", "sql").stdout
        assert printed.count("COMMIT;") == 3
        assert "-- [outbox] sqlite:///" in printed


def test_the_app_is_found_by_its_name_and_a_database_of_all_its_parts_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import camora\napp = camora.Camora('sqlite:///shop.db', outbox='sqlite:///shop.db')\n"
    )
    migrated = camora(tmp_path, "sql", "migrate", "--app", "shop:app")
    assert migrated.stdout == f"[broker] {tmp_path}/shop.db: schema upgraded from nothing to {HEAD}\n", migrated.stderr


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("", "which app?.*--url"),
        ('[broker]\nurl = "memory://"\n', "no SQL database.*--url"),
    ],
    ids=["no app", "another broker"],
)
def test_where_there_is_no_database_it_is_said_how_to_name_one(tmp_path: Path, toml: str, told: str) -> None:
    if toml:
        (tmp_path / "camora.toml").write_text(toml)
    found = camora(tmp_path, "sql", "migrate")
    assert found.returncode == 2
    assert re.search(told, " ".join(found.stderr.split()))
    assert "Traceback" not in found.stderr


def test_a_url_in_the_environment_is_enough(tmp_path: Path) -> None:
    migrated = camora(tmp_path, "sql", "migrate", CAMORA_BROKER__URL="sqlite:///mine.db")
    assert migrated.returncode == 0, migrated.stderr
    assert revision(tmp_path / "mine.db") == HEAD


def test_a_newer_schema_that_allows_this_version_is_told_alike_and_left_alone(tmp_path: Path) -> None:
    assert camora(tmp_path, "sql", "migrate", "--url", "sqlite:///shop.db").returncode == 0
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("UPDATE camora_alembic_version SET version_num = '9999'")
    connection.close()
    for command in ("status", "migrate"):
        found = camora(tmp_path, "sql", command, "--url", "sqlite:///shop.db")
        assert found.returncode == 0, found.stderr
        assert f"revision 9999, of a newer camora-sql; this one (up to {HEAD}) works with it" in found.stdout
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("UPDATE camora_facts SET value = '9999' WHERE name = 'works_with'")
    connection.close()
    for command in ("status", "migrate"):
        found = camora(tmp_path, "sql", command, "--url", "sqlite:///shop.db")
        assert found.returncode == 2
        assert "pip install --upgrade camora-sql" in found.stderr
    assert revision(tmp_path / "shop.db") == "9999"
