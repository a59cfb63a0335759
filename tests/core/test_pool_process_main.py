"""Tasks that stand in the script that was started: what another process makes of a main module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio
import attrs
from camora import Camora, Context

class Database: ...

def database() -> Database:
    return Database()

@attrs.frozen
class Thing:
    number: int

class Own(Exception): ...

app = Camora(dependencies=[database])

@app.task(execution="process")
def more(thing: Thing, database: Database, context: Context) -> Thing:
    assert isinstance(thing, Thing) and isinstance(database, Database)
    return Thing(thing.number + context.attempt)

@app.task(execution="process")
def trouble() -> None:
    raise Own("trouble")


async def main():
    from camora.builtin.pools import make_pool
    from camora.interfaces.pool import Call
    async with app, app.worker():
        assert await (await more.dispatch(Thing(1))).result(timeout=60) == Thing(2)
    pool = make_pool("process")
    await pool.open()
    try:
        await pool.call(Call(function=trouble.function, reference=trouble.reference, task="trouble"))
    except Own as error:
        print("own type:", error)
    await pool.close(5.0)

if __name__ == "__main__":
    asyncio.run(main())
"""

LIBRARY = """
from camora import Camora
app = Camora()

@app.task(execution="process")
def double(number: int) -> int:
    return 2 * number
"""

UNGUARDED = """
import asyncio
from library import app, double

async def main():
    async with app, app.worker():
        print("doubled:", await (await double.dispatch(4)).result(timeout=60))

asyncio.run(main())
"""

UNGUARDED_ITSELF = """
import asyncio
from camora.builtin.pools import make_pool
from camora.interfaces.pool import Call

def double(number: int) -> int:
    return 2 * number

async def main():
    pool = make_pool("process")
    await pool.open()
    try:
        await pool.call(Call(function=double, args=(4,), reference="__main__:double", task="double"))
    except Exception as error:
        print(type(error).__name__, error, getattr(error, "refused", False))
    await pool.close(5.0)

asyncio.run(main())
"""


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [["script.py"], ["-m", "package.script"], ["-m", "package"]])
def test_functions_types_errors_and_the_app_of_a_script_are_found(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "package").mkdir()
    for name in ("script.py", "package/script.py", "package/__main__.py", "package/__init__.py"):
        (tmp_path / name).write_text("" if name.endswith("__init__.py") else SCRIPT)
    assert run(tmp_path, *arguments) == "own type: trouble\n"


def test_a_script_is_not_run_again_for_functions_that_stand_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(LIBRARY)
    (tmp_path / "script.py").write_text(UNGUARDED)
    assert run(tmp_path, "script.py") == "doubled: 8\n"


def test_a_script_that_would_start_itself_again_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED_ITSELF)
    told = run(tmp_path, "script.py")
    assert told.startswith("ConfigurationError")
    assert 'under  if __name__ == "__main__":' in told
    assert told.endswith("True\n")


PRINTS = """
import asyncio, os
from camora.builtin.pools import make_pool
from camora.interfaces.pool import Call, PoolSettings, ProcessDied

def say() -> None:
    print("said")

def die() -> None:
    os._exit(3)

async def main():
    pool = make_pool("process", PoolSettings(kind="process", workers=1))
    await pool.open()
    await pool.call(Call(function=say, reference="__main__:say", task="say"))
    try:
        await pool.call(Call(function=die, reference="__main__:die", task="die"))
    except ProcessDied as died:
        print("died with", died.exit_code)
    await pool.close(5.0)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_what_was_printed_is_not_lost_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PRINTS)
    assert run(tmp_path, "script.py") == "said\ndied with 3\n"
