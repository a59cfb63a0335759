"""The process that forks: it imports what processes of tests import, then begets one for each request.

    python -m tests.forked.server DESCRIPTOR-OF-A-SOCKET

It ends when the other side of the socket does. A child goes on below `main`, as if it had just been started.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import os
import runpy
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, TextIO

from tests.forked.request import receive, send

_IMPORTED = (
    "camora.app", "camora.builtin.checks", "camora.builtin.injector", "camora.builtin.json_codec",
    "camora.builtin.observers.json_lines", "camora.builtin.plugin", "camora.builtin.pools.coroutine",
    "camora.builtin.pools.inline", "camora.builtin.pools.process", "camora.builtin.pools.thread", "camora.convert",
    "camora.builtin.struct_codec", "camora.cli.main", "camora.cli.worker", "camora.cli.finding", "camora.config",
    "camora.propagation", "camora.testing.ledger", "camora.worker.endpoints", "camora.worker.process",
    "camora.worker.supervisor", "camora.worker.worker",
    "cyclopts", "cyclopts.completion.detect", "cyclopts.completion.install", "rich.console", "rich.table", "uvloop",
    "camora_sql.broker", "camora_sql.dialects.sqlite", "camora_sql.dialects.postgresql", "camora_sql.dialects.mysql",
    "camora_sql.commands", "camora_sql.plugin", "camora_sql.checks", "camora_sql.creating", "camora_sql.threaded",
    "camora_redis.broker", "camora_redis.plugin", "camora_redis.checks",
    "camora_amqp.broker", "camora_amqp.plugin", "camora_amqp.checks",
    "camora_servicebus.broker", "camora_servicebus.plugin", "camora_servicebus.checks",
    "camora_workflows", "camora_workflows.checks", "camora_workflows.compose", "camora_workflows.extension",
    "camora_workflows.plugin", "camora_pydantic.plugin", "camora_pydantic.support",
    "camora_django.plugin", "cattrs", "concurrent.futures.process", "multiprocessing.spawn", "pebble", "psutil",
    "django.core.management", "django.db.models", "django.db.migrations.executor", "django.contrib.admin",
    "alembic.command", "sqlalchemy", "asyncpg", "psycopg", "asyncmy",
)  # fmt: skip
"""What most of them need. A process imports the rest by itself, as it would all of it."""


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as tests:
        for name in _IMPORTED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()  # a collector that visits what is shared would copy it
        wanted = None
        with contextlib.suppress(KeyboardInterrupt):
            while wanted is None and (request := receive(tests)) is not None:
                wanted = _forked(tests, *request)
    if wanted is not None:
        _become(wanted)


def _forked(tests: socket.socket, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any] | None:
    """The message in the new process, None in this one."""
    if not Path(message["folder"]).is_dir():
        send(tests, {"error": f"there is no folder {message['folder']}"}, [])
        _shut(*descriptors)
        return None
    told, tell = os.pipe()
    adopted, adopt = os.pipe()
    if between := os.fork():
        os.waitpid(between, 0)  # with it gone, the new process is a child of the tests'
        send(tests, {"pid": int(os.read(told, 16))}, [])
        _shut(told, tell, adopted, adopt, *descriptors)
        return None
    if pid := os.fork():
        os.write(tell, f"{pid:16d}".encode())
        os._exit(0)
    _shut(tests.detach(), told, tell, adopt)
    os.read(adopted, 1)  # until nobody else can write there: its parent is the one it is to have
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
    _shut(adopted, *descriptors)
    return message


def _shut(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _become(message: dict[str, Any]) -> None:
    """Be the process that was asked for: all that an interpreter takes up from its surroundings is taken up anew."""
    if message["session"]:
        os.setsid()
    os.chdir(message["folder"])
    del sys.path[1 : 1 + len(_python_path())]
    os.environ.clear()
    os.environ.update(message["environment"])
    sys.path[1:1] = _python_path()
    time.tzset()
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    _open_streams()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.orig_argv[:] = message["command"]
    sys.warnoptions[:] = message["warnings"]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]  # as the interpreter itself does it
    how, *words = message["words"]
    if how == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv[:] = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.path[0] = ""
        sys.argv[:] = ["-c", *words[1:]]
        module = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[0], "<string>", "exec"), vars(module))
    else:
        sys.path[0] = str(Path(how).resolve().parent)
        sys.argv[:] = [how, *words]
        runpy.run_path(how, run_name="__main__")


def _python_path() -> list[str]:
    given = os.environ.get("PYTHONPATH", "")
    return list(dict.fromkeys(str(Path(folder).absolute()) for folder in given.split(os.pathsep))) if given else []


def _open_streams() -> None:
    """Over the descriptors that it has now, in the interpreter's own manner."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115
    sys.stdin = sys.__stdin__ = stdin
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout, lines=os.isatty(1), unbuffered=unbuffered)
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr, lines=True, unbuffered=unbuffered)


def _stream(number: int, like: TextIO, *, lines: bool, unbuffered: bool) -> io.TextIOWrapper:
    raw = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[arg-type]
        encoding=like.encoding, errors=like.errors,
        line_buffering=lines and not unbuffered, write_through=unbuffered,
    )  # fmt: skip


def _end(code: int) -> None:
    """Do what an interpreter does at its end, but for taking down hundreds of modules, which would copy them first."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, (int, NoneType)):
            raise
        _end(end.code or 0)
    _end(0)
