"""Workers, as processes of manage.py."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tests.django.projects import Shop, new_shop

_MAKE = "from shop.models import Order\nfrom shop.tasks import *\n"


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.mark.parametrize(("kind", "processes"), [("sqlite", "1"), ("postgresql", "2")])
def test_jobs_of_every_kind_run(shop: Shop, processes: str) -> None:
    ids = shop.python(
        f"{_MAKE}orders = [Order.objects.create(item=item).pk for item in ('fork', 'knife', 'spoon', 'cup')]\n"
        "jobs = [ship.dispatch_sync(orders[0]), ship_async.dispatch_sync(orders[1]),\n"
        "        ship_elsewhere.dispatch_sync(orders[2]), app.dispatch_sync(Ship(orders[3]))]\n"
        "answer = [job.id for job in jobs]"
    )
    said = shop.manage("camora", "worker", "--burst", "--processes", processes)
    assert "settled" in said
    found = shop.python(
        f"{_MAKE}import asyncio\n"
        "async def results():\n"
        "    async with app:\n"
        f"        return [await (await app.job(one)).result(60) for one in {ids!r}]\n"
        "answer = [asyncio.run(results()), Order.objects.filter(shipped=False).count()]"
    )
    assert found == [["fork", "knife", "spoon", "cup"], 0]


def test_a_killed_worker_loses_nothing(shop: Shop, tmp_path: Path) -> None:
    many = 12
    shop.python(
        f"{_MAKE}from django.db import transaction\n"
        "with transaction.atomic():\n"
        f"    for number in range({many}):\n"
        f"        hold.dispatch_sync(Order.objects.create(item=str(number)).pk, {str(tmp_path)!r})"
    )
    begun = tmp_path / "begun"
    with shop.worker("--concurrency", "4", CAMORA_WORKER__LEASE="2s") as worker:
        wait_for("four jobs", lambda: begun.exists() and len(begun.read_text().splitlines()) == 4)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(10)
    (tmp_path / "go").touch()
    assert shop.unshipped == many
    with shop.worker("--concurrency", "4", CAMORA_WORKER__LEASE="2s"):
        wait_for("all orders", lambda: shop.unshipped == 0)
    # Those that were held by the one that was killed began twice; the others once.
    assert len(begun.read_text().splitlines()) == many + 4


def test_what_was_rolled_back_never_runs(shop: Shop) -> None:
    shop.python(
        f"{_MAKE}from django.db import transaction\n"
        "kept = Order.objects.create(item='kept').pk\n"
        "lost = Order.objects.create(item='lost').pk\n"
        "with transaction.atomic():\n"
        "    ship.dispatch_sync(kept)\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        ship.dispatch_sync(lost)\n"
        "        raise ZeroDivisionError\n"
        "except ZeroDivisionError:\n"
        "    pass"
    )
    shop.manage("camora", "worker", "--burst")
    assert shop.rows("SELECT item FROM shop_order WHERE shipped") == [("kept",)]


def test_what_is_more_than_one_job_waits_for_the_commit(shop: Shop) -> None:
    refused, asked = shop.python(
        f"{_MAKE}from asgiref.sync import async_to_sync\n"
        "from django.db import transaction\n"
        "made = [Order.objects.create(item=item).pk for item in ('first', 'second')]\n"
        "both = ship.si(made[0]) >> ship.si(made[1])\n"
        "answer = []\n"
        "with transaction.atomic():\n"
        "    for dispatch in (both.dispatch_sync, async_to_sync(both.dispatch)):\n"
        "        try:\n"
        "            dispatch()\n"
        "        except Exception as error:\n"
        "            answer.append(str(error))\n"
        "    transaction.on_commit(both.dispatch_sync)"
    )
    for text in (refused, asked):
        assert "is more than one job, and cannot be part of the open transaction: dispatch it when that is" in text
    shop.manage("camora", "worker", "--burst")
    assert shop.unshipped == 0


def test_an_idle_worker_is_woken_by_a_commit(shop: Shop) -> None:
    with shop.worker():
        took = shop.python(
            f"{_MAKE}import time\n"
            "from django.db import transaction\n"
            "ship.dispatch_sync(Order.objects.create(item='first').pk).result_sync(60)\n"
            "made = Order.objects.create(item='second').pk\n"
            "with transaction.atomic():\n"
            "    job = ship.dispatch_sync(made)\n"
            "answer = job.result_sync(60)"
        )
    assert took == "second"


def test_a_task_that_is_called_by_a_job_is_a_part_of_it(tmp_path: Path) -> None:
    # In SQLite whoever is in the middle of reading cannot write once others have, and the worker does.
    shop = new_shop("postgresql", tmp_path)
    shop.python(
        f"{_MAKE}Order.objects.bulk_create(Order(item=str(number)) for number in range(5))\nship_all.dispatch_sync()"
    )
    assert "settled 1 jobs" in shop.manage("camora", "worker", "--burst")
    assert shop.unshipped == 0
    assert shop.rows("SELECT id FROM camora_dead_letters") == []


def test_a_function_that_is_registered_as_it_is_runs_in_a_process(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path)
    with shop.worker():
        assert shop.python(f"{_MAKE}answer = app.dispatch_sync('sizes', ['fork', 'cup']).result_sync(60)") == [4, 3]


@pytest.mark.parametrize("age", [0, None])
def test_connections_are_as_fresh_as_in_a_request(tmp_path: Path, age: int | None) -> None:
    """In threads of a worker, and in processes of its pool."""
    shop = new_shop("postgresql", tmp_path)
    database = {**shop.database, "CONN_MAX_AGE": age, "CONN_HEALTH_CHECKS": True}
    shop = attrs.evolve(shop, database=database)
    # One slot: a process of the pool for each would be another one each time.
    with shop.worker("--concurrency", "1"):
        answers = shop.python(
            f"{_MAKE}import psycopg\n"
            "answer = []\n"
            "for where in (connected, connected_elsewhere):\n"
            "    told = [where.dispatch_sync().result_sync(60) for _ in range(2)]\n"
            f"    with psycopg.connect({shop.url!r}, autocommit=True) as connection:\n"
            "        connection.execute('SELECT pg_terminate_backend(%s)', [told[1][2]])\n"
            "    answer.append([*told, where.dispatch_sync().result_sync(60)])"
        )
    assert len(answers) == 2
    for (thread, _, first), (again, found_open, second), (_, _, third) in answers:
        assert again == thread
        assert (found_open, first == second) == (age is None, age is None)
        assert third != second


@pytest.mark.parametrize("kind", ["postgresql"])  # which two processes share
def test_without_manage_py_the_app_has_a_name(shop: Shop) -> None:
    made = shop.python(
        f"{_MAKE}order = Order.objects.create(item='fork').pk\nship.dispatch_sync(order)\nanswer = order"
    )
    assert made == 1
    shop.camora_command("worker", "camora_django:app", "--burst", "--processes", "2")
    assert shop.unshipped == 0
