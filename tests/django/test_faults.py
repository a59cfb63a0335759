"""Dispatches over Django's connection when the database fails."""

from __future__ import annotations

from pathlib import Path

import attrs

from tests.django.projects import new_shop
from tests.servers.ports import free_port

_PRELUDE = """
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora_django.models import Job
from django.db import OperationalError, connection, transaction
from shop.models import Order
from shop.tasks import ship
"""
# The connection ends while the transaction is being committed: whoever waits for the answer cannot know which it is.
_DIE_AT_COMMIT = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON camora_jobs DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION die();
"""


def test_a_commit_without_an_answer_is_told_as_such(tmp_path: Path) -> None:
    shop = new_shop("postgresql", tmp_path)
    code = f"""{_PRELUDE}
with connection.cursor() as cursor:
    cursor.execute({_DIE_AT_COMMIT!r})
try:
    ship.dispatch_sync(1)
except DispatchUncertain as error:
    job_id = error.job_id
connection.close()
try:
    with transaction.atomic():
        made = Order.objects.create(item="fork")
        ship.dispatch_sync(made.pk)
except OperationalError:
    pass  # the commit is the caller's here, and so is its error
connection.close()
with connection.cursor() as cursor:
    cursor.execute("DROP TRIGGER die ON camora_jobs")
again = [ship.options(job_id=job_id).dispatch_sync(1).id for _ in range(2)]
answer = [again == [job_id, job_id], Job.objects.count(), Order.objects.count()]
"""
    assert shop.python(code) == [True, 1, 0]


def test_a_database_that_is_away_is_named(tmp_path: Path) -> None:
    shop = new_shop("postgresql", tmp_path)
    away = attrs.evolve(shop, database={**shop.database, "PORT": str(free_port())})
    said = away.python(
        f"{_PRELUDE}\ntry:\n    ship.dispatch_sync(1)\nexcept BrokerUnavailable as error:\n    answer = str(error)"
    )
    assert said.startswith("Django's connection 'default', postgresql://127.0.0.1:")


def test_a_writer_in_the_way_is_named(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path)
    impatient = attrs.evolve(shop, database={**shop.database, "OPTIONS": {"timeout": 0.05}})
    code = f"""{_PRELUDE}
import sqlite3
writer = sqlite3.connect({shop.database["NAME"]!r}, isolation_level=None)
writer.execute("BEGIN IMMEDIATE")
try:
    ship.dispatch_sync(1)
except BrokerUnavailable as error:
    said = str(error)
with transaction.atomic():
    Order.objects.count()
    writer.execute("ROLLBACK")
    ship.dispatch_sync(2)  # the transaction has only read so far, and nobody has written since
writer.close()
answer = [said, Job.objects.count()]
"""
    said, jobs = impatient.python(code)
    assert "others were writing" in said
    assert jobs == 1
