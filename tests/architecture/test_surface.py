"""What users see: exports, import cost, docstrings, and which way imports point."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import camora
import camora.errors
import camora.hookspecs
import camora.interfaces

ROOT = Path(__file__).parents[2]


def test_everything_exported_exists_and_is_sorted() -> None:
    for module in (camora, camora.errors, camora.interfaces, camora.hookspecs):
        assert list(module.__all__) == sorted(module.__all__, key=_natural), module.__name__
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"


def _natural(name: str) -> Any:
    # As ruff sorts __all__: constants, classes, the rest.
    return (not name.isupper(), not name[0].isupper(), name)


def test_every_module_imports_and_says_what_it_is() -> None:
    for info in pkgutil.walk_packages(camora.__path__, "camora."):
        if info.name.endswith("__main__"):
            continue
        assert importlib.import_module(info.name).__doc__, info.name


def test_every_error_stands_in_the_drawn_tree_and_survives_pickling() -> None:
    import copy
    import pickle

    drawn = camora.errors.__doc__ or ""
    for name in camora.errors.__all__:
        assert re.search(rf"\b{name}\b", drawn), name
    error = camora.errors.JobFailed("text", job_id="1", error_type="ValueError", error_text="x", traceback="t")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert again.__dict__ == error.__dict__
        assert str(again) == "text"


def test_every_hook_is_documented() -> None:
    guide = (ROOT / "docs" / "plugins.md").read_text()
    for name in camora.hookspecs.__all__:
        if name.startswith("camora_"):
            assert inspect.getdoc(getattr(camora.hookspecs, name)), name
            assert f"`{name}`" in guide, f"{name} is not in docs/plugins.md"


def test_importing_camora_loads_no_backend_library() -> None:
    code = "import sys, json, camora; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    heavy = {
        "sqlalchemy",
        "alembic",
        "pebble",
        "multiprocessing",
        "svcs",
        "backoff",
        "cyclopts",
        "rich",
        "cattrs",
        "uvloop",
    }
    assert not loaded & heavy


def test_imports_point_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
