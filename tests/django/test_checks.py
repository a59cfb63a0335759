"""The project's own tests, run by `manage.py test` as any project's: in SQLite's memory, and on a PostgreSQL."""

from __future__ import annotations

import re

from tests.django.projects import FOLDER, Shop


def test_the_projects_own_tests(shop: Shop) -> None:
    said = shop.manage("test", "--pattern", "checks_*.py", "shop", "--noinput")
    ran = re.search(r"Ran (\d+) tests", said)
    modules = list((FOLDER / "shop" / "checks").glob("checks_*.py"))
    assert len(modules) == 3
    assert ran, said
    assert int(ran[1]) == sum(module.read_text().count("def test_") for module in modules), said
    assert said.rstrip().splitlines()[-2].strip() == "OK" or "\nOK\n" in said, said
