"""Camora's tables by `manage.py migrate`: the very ones that camora-sql makes, or those that it has made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import psycopg

from tests.django.projects import Shop, new_shop

_SHAPE = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE name LIKE 'camora%' AND name NOT LIKE 'camora_django%'",
    "postgresql": """
        SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
        FROM information_schema.columns WHERE table_name LIKE 'camora%'
        UNION SELECT tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE indexname LIKE 'camora%'
        UNION SELECT proname, prosrc, '', '', '', '' FROM pg_proc WHERE proname LIKE 'camora%'
    """,
}


def shape(shop: Shop, kind: str, prefix: str = "camora") -> set[tuple[str, ...]]:
    """All that Camora has made in a database under this prefix, in the database's own words."""
    rows = shop.rows(_SHAPE[kind].replace("camora%", f"{prefix}%"))
    assert rows
    return {tuple(" ".join(str(value).split()) for value in row) for row in rows}


def columns(found: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Regardless of quotes, and of how alembic breaks lines."""
    return {tuple(part.replace('"', "").replace("( ", "(").replace(" )", ")") for part in row) for row in found}


def test_the_tables_are_those_that_camora_sql_makes(kind: str, shop: Shop, tmp_path: Path) -> None:
    other = new_shop(kind, tmp_path, migrated=False)
    other.camora_command("sql", "migrate", "--url", other.url)
    made, expected = shape(shop, kind), shape(other, kind)
    assert {row[0] for row in made} == {row[0] for row in expected}
    if kind == "postgresql":
        assert columns(made) == columns(expected)
    assert "the newest" in shop.camora_command("sql", "status", "--url", shop.url)


def test_migrating_again_does_nothing(shop: Shop) -> None:
    said = shop.calls(["migrate"], ["makemigrations", "--check", "--dry-run"])
    assert "No migrations to apply" in said
    assert "No changes" in said


def test_tables_with_jobs_in_them_are_adopted(kind: str, tmp_path: Path) -> None:
    shop = new_shop(kind, tmp_path, migrated=False)
    shop.camora_command("sql", "migrate", "--url", shop.url)
    [job] = shop.manage("camora", "dispatch", "ship", "7").split()
    look = "from camora_django.models import Job\nanswer = [job.id for job in Job.objects.all()]"
    assert shop.calls(["migrate", "-v", "0"], then=look) == [job]


def test_a_worker_that_starts_at_the_same_moment(kind: str, tmp_path: Path) -> None:
    shop = new_shop(kind, tmp_path, migrated=False)
    with ThreadPoolExecutor(2) as threads:
        worker = threads.submit(shop.camora_command, "sql", "migrate", "--url", shop.url)
        shop.manage("migrate", "-v", "0")
        worker.result()
    assert "the newest" in shop.camora_command("sql", "status", "--url", shop.url)


def test_undoing_the_migration_leaves_the_jobs_where_they_are(shop: Shop) -> None:
    [job] = shop.manage("camora", "dispatch", "ship", "7").split()
    shop.calls(["migrate", "-v", "0", "camora_django", "zero"], ["migrate", "-v", "0"])
    assert f'"id": "{job}"' in shop.manage("camora", "job", "show", job, "--json")


def test_the_statements_can_be_printed(shop: Shop) -> None:
    printed = shop.manage("sqlmigrate", "camora_django", "0001")
    assert "CREATE TABLE camora_jobs" in printed
    assert "INSERT INTO camora_alembic_version" in printed


def test_the_migrations_lead_to_the_newest_revision(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, migrated=False)
    last, newest = shop.python(
        "from django.db.migrations.loader import MigrationLoader\n"
        "from camora_django.schema import UpgradeSchema\n"
        "from camora_sql.schema import HEAD\n"
        "migrations = MigrationLoader(None).disk_migrations\n"
        "upgrades = [step.revision for key in sorted(migrations) for step in migrations[key].operations\n"
        "            if isinstance(step, UpgradeSchema)]\n"
        "answer = [upgrades[-1], HEAD]"
    )
    assert last == newest


def test_tables_of_another_prefix(kind: str, tmp_path: Path) -> None:
    shop = new_shop(kind, tmp_path, migrated=False, camora={"broker": {"prefix": "jobs_"}})
    assert where_jobs_are(shop) == "jobs_jobs"


def test_tables_in_a_schema(tmp_path: Path) -> None:
    shop = new_shop("postgresql", tmp_path, migrated=False, camora={"broker": {"schema": "background"}})
    with psycopg.connect(shop.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA background")
    assert where_jobs_are(shop) == 'background"."camora_jobs'


def test_a_prefix_that_comes_after_the_first_migrate(kind: str, shop: Shop) -> None:
    [job] = shop.manage("camora", "dispatch", "ship", "8").split()
    moved = attrs.evolve(shop, camora={"broker": {"prefix": "jobs_"}})
    said = moved.calls(["migrate"], ["migrate"], ["flush", "--no-input"])
    assert said.count("Made Camora's tables under the names that settings.CAMORA gives now") == 1
    assert where_jobs_are(moved) == "jobs_jobs"
    assert shop.rows("SELECT id FROM camora_jobs") == [(job,)]
    assert {row[0].replace("jobs_", "camora_", 1) for row in shape(moved, kind, "jobs")} == {
        row[0] for row in shape(shop, kind)
    }


def test_a_broker_in_djangos_database_that_comes_after_the_first_migrate(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, migrated=False, camora={"broker": {"url": "memory://"}})
    shop.calls(["migrate"])
    moved = attrs.evolve(shop, camora=None)
    assert moved.rows("SELECT name FROM sqlite_master WHERE name = 'camora_jobs'") == []
    assert where_jobs_are(moved) == "camora_jobs"


def test_no_tables_are_made_before_their_migration(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, migrated=False)
    shop.manage("migrate", "shop")
    assert shop.rows("SELECT name FROM sqlite_master WHERE name LIKE 'camora%'") == []


def test_a_schema_that_there_is_not(tmp_path: Path) -> None:
    shop = new_shop("postgresql", tmp_path, migrated=False, camora={"broker": {"schema": "background"}})
    said = shop.manage("migrate", fails=True)
    assert "CommandError: Django's connection 'default', postgresql://" in said.splitlines()[-1]
    assert "there is no such schema; create it: CREATE SCHEMA background" in said
    assert "Traceback" not in said


def where_jobs_are(shop: Shop) -> str:
    said, table, dispatched, stored = shop.calls(
        ["migrate", "-v", "0"],
        ["makemigrations", "--check", "--dry-run"],
        then="from django.db import transaction\n"
        "from shop.tasks import ship\n"
        "from camora_django.models import Job\n"
        "with transaction.atomic():\n"
        "    made = ship.dispatch_sync(7)\n"
        "answer = [out.getvalue(), Job._meta.db_table, made.id, Job.objects.get().id]",
    )
    assert "No changes" in said
    assert dispatched == stored
    assert "settled 1 jobs" in shop.manage("camora", "worker", "--burst")
    return str(table)
