"""`manage.py camora …`, and what is said of settings that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.django.projects import new_shop


def test_the_commands_of_camora(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path)
    assert "Run jobs until SIGTERM" in shop.manage("camora", "--help")
    assert "--max-memory" in shop.manage("camora", "worker", "--help")
    [job] = shop.manage("camora", "dispatch", "fail", "3").split()
    assert "default" in shop.manage("camora", "queues")
    shop.manage("camora", "worker", "--settings=shopsite.settings", "--burst", "--pythonpath", ".")
    assert "fail(order=3)" in shop.manage("camora", "dead", "list")
    assert job in shop.manage("camora", "dead", "list", "--json")


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path)
    said = shop.manage("camora", "wrker", fails=True)
    assert "did you mean 'worker'?" in said
    assert "Traceback" not in said


def test_outside_of_a_project_the_broker_says_what_it_lacks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "camora", "plugins", "check", "django"],
        cwd=tmp_path, env={**os.environ, "DJANGO_SETTINGS_MODULE": ""}, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert "set DJANGO_SETTINGS_MODULE, or use manage.py camora" in done.stderr


def test_from_python(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path)
    said = shop.python(
        "import contextlib, io\n"
        "from django.core.management import call_command\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    call_command('camora', 'dispatch', 'fail', '3')\n"
        "    call_command('camora', 'worker', '--burst')\n"
        "    call_command('camora', 'dead', 'list', '--json')\n"
        "answer = out.getvalue()"
    )
    assert "no order 3" in said


@pytest.mark.parametrize(
    ("camora", "expected"),
    [
        ([1], "settings.CAMORA is a list; give a dict"),
        ({"brokr": {}}, "settings.CAMORA: brokr: unknown section: did you mean 'broker'?"),
        (
            {"broker": {"url": "django://other"}},
            "settings.CAMORA: broker.url: settings.DATABASES has no 'other'; it has default",
        ),
        ({"broker": {"url": "django://default", "pool_siz": 3}}, "settings.CAMORA: broker.pool_siz"),
        ({"broker": {"prefix": "No Such"}}, "settings.CAMORA: broker.prefix"),
        ({"broker": 3}, "settings.CAMORA: broker"),
        ("shop.own.nothing", "settings.CAMORA: app 'shop.own:nothing': module shop.own has no 'nothing'"),
        ("shop.models.Order", "settings.CAMORA = 'shop.models.Order': is a ModelBase, not a Camora"),
    ],
    ids=["type", "key", "alias", "setting", "prefix", "table", "missing", "no app"],
)
def test_settings_that_cannot_be(tmp_path: Path, camora: Any, expected: str) -> None:
    said = new_shop("sqlite", tmp_path, migrated=False, camora=camora).manage("check", fails=True)
    assert said.splitlines()[-1].startswith(f"camora_django.errors.WrongSettings: {expected}")


def test_results_are_needed_for_djangos_tasks(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, camora={"results": {"enabled": False}})
    assert "camora.E003" in shop.manage("check", fails=True)


def test_another_broker(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, camora={"broker": {"url": f"sqlite:///{tmp_path}/jobs.db"}})
    assert "camora.E002" in shop.manage("check", fails=True)
    [job] = shop.manage("camora", "dispatch", "fail", "3").split()
    assert job in shop.manage("camora", "job", "show", job, "--json")


def test_an_app_of_the_projects_own(kind: str, tmp_path: Path) -> None:
    shop = new_shop(kind, tmp_path, camora="shop.own.app")
    shop.python(
        "from shop.models import Order\nfrom shop.tasks import ship\nfrom django.db import transaction\n"
        "with transaction.atomic():\n"
        "    ship.dispatch_sync(Order.objects.create(item='fork').pk)"
    )
    said = shop.manage("camora", "worker", "--burst", "--processes", "2")
    assert "parcels" in said
    assert shop.python("from shop.models import Order\nanswer = Order.objects.get().shipped") is True
