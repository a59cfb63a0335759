"""Running checks so that none can hold up the others, not even one that blocks its event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from camora.errors import CamoraError
from camora.interfaces.operations import Check, CheckResult

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["Examiner"]

_GRACE = 1.0
"""Seconds within which a loop that is not blocked answers."""


class Examiner:
    """Runs checks in a loop in a thread of its own. A loop that a check has blocked is left behind for a new one."""

    def __init__(self, app: Camora) -> None:
        self._app = app

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(TimeoutError):
            self._wait(self._app.close(), _GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_GRACE)
        if not self._thread.is_alive():
            self._loop.close()

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: what hangs in it must not keep the process from ending.
        self._thread = threading.Thread(target=self._loop.run_forever, name="camora-doctor", daemon=True)
        self._thread.start()

    def run(self, check: Check, timeout: float) -> CheckResult:
        """The check's result; a failure when it raises, or is not done after `timeout` seconds."""
        try:
            answer, error = self._wait(check.run(self._app), timeout)
        except TimeoutError:
            return CheckResult(
                ok=False, text=f"not done after {timeout:g} s", fix="does something hang, or drop packets?"
            )
        if error is None:
            return answer if isinstance(answer, CheckResult) else _no_result(answer)
        text = str(error) if isinstance(error, CamoraError) else f"{type(error).__name__}: {error}"
        return CheckResult(ok=False, text=text, fix="mend what this says")

    def _wait(self, work: Any, timeout: float) -> tuple[Any, Exception | None]:
        """What the coroutine returned, or what it raised. Raises `TimeoutError`."""
        future = asyncio.run_coroutine_threadsafe(_bounded(work, timeout), self._loop)
        try:
            return future.result(timeout + _GRACE)
        except concurrent.futures.TimeoutError:
            # Not even cancelling works: the loop itself is blocked.
            self._start()
            raise TimeoutError from None


async def _bounded(work: Coroutine[Any, Any, Any], timeout: float) -> tuple[Any, Exception | None]:
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=timeout)
    if not done:
        task.cancel()
        raise TimeoutError
    error = task.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return (None, error) if error is not None else (task.result(), None)


def _no_result(answer: object) -> CheckResult:
    return CheckResult(ok=False, text=f"returned {answer!r}, not a CheckResult", fix="tell the author of this check")
