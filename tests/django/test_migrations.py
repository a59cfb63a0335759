"""Camora's tables by `manage.py migrate`: the very ones that camora-sql makes, or those that it has made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def shape(shop: Shop, kind: str) -> set[tuple[str, ...]]:
    """All that Camora has made in a database, in the database's own words."""
    rows = shop.python(
        "from django.db import connection\n"
        "with connection.cursor() as cursor:\n"
        f"    cursor.execute({_SHAPE[kind]!r})\n"
        "    answer = [[' '.join(str(value).split()) for value in row] for row in cursor.fetchall()]"
    )
    assert rows
    return {tuple(row) for row in rows}


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
    assert "No migrations to apply" in shop.manage("migrate")
    assert "No changes" in shop.manage("makemigrations", "--check", "--dry-run")


def test_tables_with_jobs_in_them_are_adopted(kind: str, tmp_path: Path) -> None:
    shop = new_shop(kind, tmp_path, migrated=False)
    shop.camora_command("sql", "migrate", "--url", shop.url)
    [job] = shop.manage("camora", "dispatch", "ship", "7").split()
    shop.manage("migrate", "-v", "0")
    assert shop.python("from camora_django.models import Job\nanswer = [job.id for job in Job.objects.all()]") == [job]


def test_a_worker_that_starts_at_the_same_moment(kind: str, tmp_path: Path) -> None:
    shop = new_shop(kind, tmp_path, migrated=False)
    with ThreadPoolExecutor(2) as threads:
        worker = threads.submit(shop.camora_command, "sql", "migrate", "--url", shop.url)
        shop.manage("migrate", "-v", "0")
        worker.result()
    assert "the newest" in shop.camora_command("sql", "status", "--url", shop.url)


def test_undoing_the_migration_leaves_the_jobs_where_they_are(shop: Shop) -> None:
    [job] = shop.manage("camora", "dispatch", "ship", "7").split()
    shop.manage("migrate", "-v", "0", "camora_django", "zero")
    shop.manage("migrate", "-v", "0")
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


def where_jobs_are(shop: Shop) -> str:
    shop.manage("migrate", "-v", "0")
    assert "No changes" in shop.manage("makemigrations", "--check", "--dry-run")
    made = shop.python(
        "from django.db import transaction\n"
        "from shop.tasks import ship\n"
        "from camora_django.models import Job\n"
        "with transaction.atomic():\n"
        "    made = ship.dispatch_sync(7)\n"
        "answer = [Job._meta.db_table, made.id == Job.objects.get().id]"
    )
    assert made[1] is True
    assert "settled 1 jobs" in shop.manage("camora", "worker", "--burst")
    return str(made[0])
