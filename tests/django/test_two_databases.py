"""A project whose jobs are in another database than most of its tables."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.django.projects import Shop, new_shop

_PRELUDE = """
from camora.errors import ConfigurationError
from camora_django.models import DeadLetter, Job, Result
from django.db import connections, transaction
from shop.tasks import ship
def error_of(dispatch, using):
    try:
        with transaction.atomic(using=using):
            dispatch()
    except ConfigurationError as error:
        return str(error)
"""


@pytest.fixture
def two(kind: str, tmp_path: Path) -> Shop:
    """`queue` has jobs, `default` has tables for them, too."""
    there = new_shop(kind, tmp_path)
    return attrs.evolve(new_shop(kind, tmp_path), queue=there.database, camora={"broker": {"url": "django://queue"}})


def test_the_models_look_where_the_jobs_are(two: Shop) -> None:
    elsewhere, job, found, named, dead, results = two.python(
        f"{_PRELUDE}with transaction.atomic(using='queue'):\n"
        "    job = ship.dispatch_sync(1).id\n"
        "    answer = [Job.objects.using('default').count(), job, Job.objects.get().id,\n"
        "              Job.objects.db_manager('queue').get().id, DeadLetter.objects.count(), Result.objects.count()]"
    )
    assert (elsewhere, found, named, dead, results) == (0, job, job, 0, 0)
    assert two.rows("SELECT id FROM camora_jobs") == []


def test_a_connection_to_another_database_is_refused(two: Shop) -> None:
    [refused, own, left] = two.python(
        f"{_PRELUDE}answer = [\n"
        "    error_of(lambda: ship.options(connection=connections['default']).dispatch_sync(1), 'default'),\n"
        "    error_of(lambda: ship.options(connection=connections['queue']).dispatch_sync(1), 'queue'),\n"
        "    Job.objects.count()]"
    )
    assert refused.startswith("options(connection=connections['default']): that is another database than 'queue'")
    assert (own, left) == (None, 1)
    assert two.rows("SELECT id FROM camora_jobs") == []


def test_a_connection_of_another_kind_is_refused(tmp_path: Path) -> None:
    there = new_shop("postgresql", tmp_path)
    two = attrs.evolve(new_shop("sqlite", tmp_path), queue=there.database, camora={"broker": {"url": "django://queue"}})
    dispatch = "lambda: ship.options(connection=connections['default']).dispatch_sync(1)"
    refused = two.python(f"{_PRELUDE}answer = error_of({dispatch}, 'default')")
    assert "another database than 'queue'" in refused


def test_another_way_to_the_same_database_is_none(tmp_path: Path) -> None:
    shop = new_shop("postgresql", tmp_path)
    assert shop.database["HOST"] != "localhost"
    two = attrs.evolve(shop, queue={**shop.database, "HOST": "localhost"}, camora={"broker": {"url": "django://queue"}})
    said = two.python(
        f"{_PRELUDE}try:\n"
        "    with transaction.atomic():\n"
        "        ship.options(connection=connections['default']).dispatch_sync(1)\n"
        "        answer = Job.objects.using('default').count()\n"
        "        raise ZeroDivisionError\n"
        "except ZeroDivisionError:\n"
        "    answer = [answer, Job.objects.count()]"
    )
    assert said == [1, 0]
