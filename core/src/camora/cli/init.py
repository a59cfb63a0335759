"""`camora init`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from camora.cli.common import OK, note, say
from camora.errors import ConfigurationError

__all__ = ["init"]

_SETTINGS = """\
app = "tasks:app"

[broker]
url = "{url}"

[worker]
concurrency = 100

[retry]
max_tries = 3
"""

_TASKS = '''\
from camora import Camora

app = Camora.from_toml()


@app.task
async def hello(name: str) -> str:
    """Say hello."""
    return f"Hello, {name}!"
'''


def init(folder: Annotated[Path, Parameter(help="Where; it is made if need be.")] = Path(), /) -> int:
    """Write a camora.toml and a tasks.py to begin with; overwrites nothing."""
    durable = find_spec("camora_sql") is not None
    files = {
        folder / "camora.toml": _SETTINGS.format(url="sqlite:///camora.db" if durable else "memory://"),
        folder / "tasks.py": _TASKS,
    }
    taken = [str(path) for path in files if path.exists()]
    if taken:
        exist = "exist" if len(taken) > 1 else "exists"
        raise ConfigurationError(f"camora init: {' and '.join(taken)} {exist} already, and nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigurationError(f"camora init: cannot write to {folder}: {error.strerror}") from None
    say(f"wrote {' and '.join(map(str, files))}. Now, in two terminals{_inside(folder)}:")
    say("  camora dev" if find_spec("watchfiles") is not None else "  camora worker")
    say("  camora dispatch tasks:hello name=Ada --wait")
    if not durable:
        note(
            "memory:// lives in one process; for the second command:  pip install camora-sql  and  url = "
            '"sqlite:///camora.db"  in camora.toml'
        )
    return OK


def _inside(folder: Path) -> str:
    return "" if folder.resolve() == Path.cwd() else f" (after  cd {folder})"
