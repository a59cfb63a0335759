"""`camora shell`."""

from __future__ import annotations

import ast
import asyncio
import code
import inspect
import sys
import types
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from camora.cli.codes import OK
from camora.cli.common import Where, masked

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["shell"]


def shell(*, where: Where = Where()) -> int:  # noqa: B008 -- frozen
    """Open a Python prompt with the app and its tasks in scope, where `await` works; IPython, if it is installed."""
    app = where.find()
    scope = _scope(app)
    banner = f"{masked(repr(app))}\nin scope: {', '.join(scope)}; await works here"
    if sys.stdin.isatty() and find_spec("IPython") is not None:
        import IPython  # type: ignore[import-not-found,unused-ignore]

        print(banner)  # noqa: T201
        IPython.start_ipython(argv=["--no-banner"], user_ns=scope)
    else:
        _Prompt(scope, app).interact(banner=banner, exitmsg="")
    return OK


def _scope(app: Camora) -> dict[str, Any]:
    """The app, and each task under its function's name, where two do not share it."""
    scope: dict[str, Any] = {"app": app}
    for task in app.tasks:
        name = task.__name__
        scope[name] = None if name in scope else (task.function if task.is_class else task)
    return {name: what for name, what in scope.items() if what is not None}


class _Prompt(code.InteractiveConsole):
    """A prompt that awaits: the loop runs while a line does."""

    def __init__(self, scope: dict[str, Any], app: Camora) -> None:
        super().__init__({**scope, "__name__": "__console__"})
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._app = app
        self._loop = asyncio.new_event_loop()

    def interact(self, banner: str | None = None, exitmsg: str | None = None) -> None:
        """Until the end of the input; then lets go of the app's connections."""
        try:
            super().interact(banner, exitmsg)
        finally:
            self._loop.run_until_complete(self._app.close())
            self._loop.close()

    def runcode(self, code: types.CodeType) -> None:
        """Run a line, and show what it raises."""
        try:
            answer = types.FunctionType(code, self.locals)()
            if inspect.iscoroutine(answer):
                self._loop.run_until_complete(answer)
        except SystemExit:
            raise
        except BaseException:  # noqa: BLE001 -- as every Python prompt does
            self.showtraceback()
