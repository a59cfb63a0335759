"""The project's own tests, run by `manage.py test` as any project's: in SQLite's memory, and on a PostgreSQL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.django.projects import FOLDER, Shop

_MODULES = sorted(path.stem for path in (FOLDER / "shop" / "checks").glob("checks_*.py"))


@pytest.mark.parametrize("module", _MODULES)
def test_the_projects_own_tests(shop: Shop, module: str) -> None:
    said = shop.manage("test", "--pattern", f"{module}.py", "shop", "--noinput")
    ran = re.search(r"Ran (\d+) tests", said)
    expected = (Path(FOLDER) / "shop" / "checks" / f"{module}.py").read_text().count("def test_")
    assert ran, said
    assert int(ran[1]) == expected, said
    assert said.rstrip().splitlines()[-2].strip() == "OK" or "\nOK\n" in said, said
