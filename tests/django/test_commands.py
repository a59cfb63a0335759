"""`manage.py camora …`, and what is said of settings that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
import pytest

from tests.django.projects import FOLDER, new_shop


@pytest.mark.timeout(300)  # eight processes, one after the other
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


@pytest.mark.parametrize("command", ["check", "show"])
def test_settings_of_a_project_are_in_no_file(tmp_path: Path, command: str) -> None:
    said = new_shop("sqlite", tmp_path).manage("camora", "config", command, fails=2)
    assert said == (
        "camora: this project's settings are settings.CAMORA, and no camora.toml: manage.py check says what is wrong "
        "with them, manage.py diffsettings shows them\n"
    )


def test_a_file_that_is_named_is_looked_at(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path)
    named = tmp_path / "camora.toml"
    named.write_text('[broker]\nurl = "memory://"\n')
    assert "nothing is wrong" in shop.manage("camora", "config", "check", "--config", str(named))


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
        ({"broker": {"url": "rediss3://there"}}, "settings.CAMORA: broker.url"),
        ("nowhere.app", "settings.CAMORA: app 'nowhere:app': there is no module 'nowhere'"),
        ("shop.models.Order", "settings.CAMORA = 'shop.models.Order': is a ModelBase, not a Camora"),
    ],
    ids=["type", "key", "alias", "setting", "prefix", "table", "missing", "plugin", "module", "no app"],
)
def test_settings_that_cannot_be(tmp_path: Path, camora: Any, expected: str) -> None:
    said = new_shop("sqlite", tmp_path, migrated=False, camora=camora).manage("check", fails=True)
    assert f"?: (camora.E001) {expected}" in said
    assert "Traceback" not in said
    assert "1 issue" in said


_OTHERS = [("worker",), ("worker", "--processes", "2"), ("queues",), ("dead", "list"), ("dispatch", "ship", "7")]


@pytest.mark.parametrize("command", _OTHERS, ids=[" ".join(command) for command in _OTHERS])
def test_every_command_says_what_is_wrong_with_the_settings(tmp_path: Path, command: tuple[str, ...]) -> None:
    shop = new_shop("sqlite", tmp_path, camora={"brokr": {}})
    said = shop.manage("camora", *command, fails=2)
    assert "camora: settings.CAMORA: brokr: unknown section: did you mean 'broker'?\n" in said
    assert "Traceback" not in said


def test_django_itself_goes_on_without_the_app(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, camora={"broker": {"url": "django://other"}})
    assert "camora.E001" in shop.manage("migrate", fails=True)
    assert "Run jobs until SIGTERM" in shop.manage("camora", "--help")
    said = shop.python(
        "from shop import mails\n"
        "from shop.tasks import ship\n"
        "from camora_django import app\n"
        "answer = []\n"
        "async def work():\n"
        "    async with app, app.worker():\n"
        "        pass\n"
        "for use in (lambda: ship.dispatch_sync(1), lambda: mails.thank.enqueue(1),\n"
        "            lambda: mails.thank.get_result('x'),\n"
        "            lambda: app.run_sync(work()), lambda: app.broker.queues):\n"
        "    try:\n"
        "        use()\n"
        "    except Exception as error:\n"
        "        answer.append([type(error).__name__, str(error)])\n"
        "from camora_django.models import Job\n"
        "from django.contrib import admin\n"
        "answer.append(admin.site.is_registered(Job))\n"
        "app.close_sync()"
    )
    text = "settings.CAMORA: broker.url: settings.DATABASES has no 'other'; it has default"
    assert said == [*([["WrongSettings", text]] * 5), False]


def test_an_app_that_would_not_join_djangos_transactions(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, camora="shop.plain.app")
    said = shop.manage("check", fails=True)
    assert "(camora.E001) settings.CAMORA = 'shop.plain.app': django://default in a plain Camora" in said
    refused = shop.python(
        "from camora.errors import ConfigurationError\n"
        "from django.db import transaction\n"
        "from shop.plain import app, pack\n"
        "from shop.models import Order\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        pack.dispatch_sync(Order.objects.create(item='fork').pk)\n"
        "except ConfigurationError as error:\n"
        "    answer = str(error)\n"
        "app.close_sync()"
    )
    assert "make the app a DjangoCamora" in refused
    assert shop.rows("SELECT id FROM camora_jobs") == []
    assert shop.rows("SELECT id FROM shop_order") == []


def test_results_are_needed_for_djangos_tasks(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, camora={"results": {"enabled": False}})
    assert "camora.E003" in shop.manage("check", fails=True)


@pytest.mark.skipif(django.VERSION >= (6,), reason="Django 6 has tasks of its own")
def test_the_backport_of_djangos_tasks_is_asked_for(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path)
    # As if it were not installed.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['django_tasks'] = None\n")
    said = shop.manage("check", fails=True, PYTHONPATH=os.pathsep.join([str(tmp_path), str(FOLDER)]))
    assert "TASKS['default']: before Django 6, Django's tasks are a package of their own: pip install \"" in said
    assert "camora.E005" in said
    assert "Traceback" not in said
    said = shop.manage("check", fails=True, SHOP_FORGETS_BACKPORT="1")
    assert "(camora.E006) TASKS['default']: CamoraBackend needs \"django_tasks\" in INSTALLED_APPS" in said
    said = shop.manage("check", fails=True, SHOP_FORGETS_BACKPORT="1", SHOP_BACKEND="camora_django.tasks.Backend")
    assert '(camora.E005) TASKS[\'default\']: Module "camora_django.tasks" does not define a "Backend"' in said


def test_another_broker(tmp_path: Path) -> None:
    shop = new_shop("sqlite", tmp_path, camora={"broker": {"url": f"sqlite:///{tmp_path}/jobs.db"}})
    assert "camora.E002" in shop.manage("check", fails=True)
    [job] = shop.manage("camora", "dispatch", "fail", "3").split()
    assert job in shop.manage("camora", "job", "show", job, "--json")


def test_an_app_of_the_projects_own(tmp_path: Path) -> None:
    shop = new_shop("postgresql", tmp_path, camora="shop.own.app")
    shop.python(
        "from shop.models import Order\nfrom shop.tasks import ship\nfrom django.db import transaction\n"
        "with transaction.atomic():\n"
        "    ship.dispatch_sync(Order.objects.create(item='fork').pk)"
    )
    said = shop.manage("camora", "worker", "--burst", "--processes", "2")
    assert "parcels" in said
    assert shop.rows("SELECT shipped FROM shop_order") == [(True,)]
