"""What runs in a process of the process pool. The functions here are called by reference, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any

from camora.builtin.pools.main_module import Main, load
from camora.builtin.pools.parcel import Parcel, missing_app, pack_error, pack_value, rebuilt_context
from camora.builtin.pools.parent import end_with
from camora.builtin.pools.references import function_of, resolve
from camora.context import Context
from camora.errors import UnsupportedCapability
from camora.interfaces.pool import TaskExit
from camora.message import Message
from camora.outcome import Progress
from camora.propagation import restore
from camora.signals import Suspend

__all__ = ["DEAF_TO", "finish", "prepare", "run", "start"]

DEAF_TO = frozenset({signal.SIGINT, signal.SIGTERM})
"""Signals that a terminal or a service manager sends to the whole group."""


def start(parent: int, main: Main) -> None:
    """The first thing in the process: it ends with its parent, and leaves signals of the whole group to it."""
    end_with(parent)
    _process.main = main
    for number in DEAF_TO:
        # A handler that does nothing, and not SIG_IGN, which programs started from here would inherit.
        signal.signal(number, _leave_to_parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DEAF_TO)


def _leave_to_parent(number: int, frame: Any) -> None:
    del number, frame


class _Process:
    """What one process keeps between calls: its event loop, and the apps whose dependencies live here."""

    def __init__(self) -> None:
        self.main: Main = None
        self.calling = False
        """True once the function of the present call has been reached."""
        self._runner: asyncio.Runner | None = None
        self._apps: dict[str, Any] = {}

    @property
    def runner(self) -> asyncio.Runner:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner

    def app(self, reference: str) -> Any:
        """The app, with its injector open in this process."""
        if reference not in self._apps:
            app = resolve(reference)
            self.runner.run(app.injector.open())
            self._apps[reference] = app
        return self._apps[reference]

    def call(self, parcel: Parcel) -> Any:
        """Run the function; raises what it raises."""
        target = parcel.target
        found = resolve(target) if isinstance(target, str) else target
        function = function_of(found)
        variables = contextvars.copy_context()
        variables.run(restore, parcel.variables)
        if not parcel.injected:
            self.calling = True
            if parcel.is_async:
                return self.runner.run(_contained(function, parcel.args, parcel.kwargs), context=variables)
            return variables.run(function, *parcel.args, **parcel.kwargs)
        return _Injected(self, parcel, found, variables).call(function)

    def close(self) -> None:
        """Tear down the dependencies made here."""
        for app in self._apps.values():
            self.runner.run(app.injector.close())
            self.runner.run(app.close())  # it may have dispatched
        self._apps.clear()
        if self._runner is not None:
            self._runner.close()
            self._runner = None


class _Injected:
    """One call whose dependencies are made in this process."""

    def __init__(self, process: _Process, parcel: Parcel, found: Any, variables: contextvars.Context) -> None:
        self._process = process
        self._parcel = parcel
        self._variables = variables
        self._app = process.app(parcel.app) if parcel.app else None
        task = found
        if self._app is not None and (known := self._app.tasks.get(parcel.task)) is not None:
            task = known
        assert parcel.job is not None
        self._context = rebuilt_context(parcel.job, task, _Port(self._app))

    def call(self, function: Callable[..., Any]) -> Any:
        """Make what is asked for, call, and tear down: a plain function is called outside the loop."""
        parcel, run = self._parcel, self._process.runner.run
        given = {Context: self._context, Message: self._context.message}
        ready = {name: given[kind] for name, kind in parcel.injected.items() if kind in given}
        wanted = {name: kind for name, kind in parcel.injected.items() if kind not in given}
        if wanted and self._app is None:
            raise missing_app(wanted, parcel.task)
        if parcel.is_async:
            return run(_contained(self._within, (function, ready, wanted), {}), context=self._variables)
        if not wanted:
            self._process.calling = True
            return self._variables.run(function, *parcel.args, **{**parcel.kwargs, **ready})
        return self._around(function, ready, wanted)

    async def _within(self, function: Callable[..., Any], ready: dict[str, Any], wanted: dict[str, Any]) -> Any:
        parcel = self._parcel
        if not wanted:
            self._process.calling = True
            return await function(*parcel.args, **{**parcel.kwargs, **ready})
        async with self._scope() as scope:
            made = {name: await scope.get(kind) for name, kind in wanted.items()}
            self._process.calling = True
            return await function(*parcel.args, **{**parcel.kwargs, **ready, **made})

    def _around(self, function: Callable[..., Any], ready: dict[str, Any], wanted: dict[str, Any]) -> Any:
        """The scope is entered and left in one task, which stands still while the function runs."""
        parcel, variables, runner = self._parcel, self._variables, self._process.runner
        loop = runner.get_loop()
        made: asyncio.Future[dict[str, Any]] = loop.create_future()
        ended: asyncio.Future[Exception | Suspend | None] = loop.create_future()

        async def hold() -> None:
            async with self._scope() as scope:
                made.set_result({name: await scope.get(kind) for name, kind in wanted.items()})
                error = await ended
                if error is not None:
                    raise error

        holding = loop.create_task(hold(), context=variables)
        value: Any = None
        error: Exception | Suspend | None = None
        try:
            given = runner.run(_either(made, holding))
            self._process.calling = True
            value = variables.run(function, *parcel.args, **{**parcel.kwargs, **ready, **given})
        except (Exception, Suspend) as raised:  # noqa: BLE001 -- it comes out of the scope again
            error = raised
        except BaseException as raised:  # noqa: BLE001 -- as in `_contained`
            error = TaskExit.of(raised)
        ended.set_result(error)
        runner.run(_either(holding, holding))
        return value

    def _scope(self) -> Any:
        assert self._app is not None
        return self._app.injector.job_scope(self._context)


async def _either(first: asyncio.Future[Any], other: asyncio.Future[Any]) -> Any:
    """What the first comes to, or the other if that ends before."""
    await asyncio.wait({first, other}, return_when=asyncio.FIRST_COMPLETED)
    return (first if first.done() else other).result()


class _Port:
    """What a job in a process can reach: it may dispatch, where the broker is one that processes share."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self._app is None or not self._app.broker.capabilities.shared:
            raise UnsupportedCapability(
                "a job in a process pool cannot dispatch: its broker lives in the worker's process", capability="shared"
            )
        return await self._app.dispatch(what, *args, **kwargs)

    async def acknowledge(self, context: Context) -> bool:
        raise UnsupportedCapability(
            f'{context.task}: a job in a process pool cannot acknowledge itself; use ack="before"'
        )

    async def report(self, context: Context, progress: Progress) -> None:
        del progress
        raise UnsupportedCapability(f"{context.task}: progress cannot be reported from a process pool")


async def _contained(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await it; what is no `Exception` must not reach the loop."""
    try:
        return await function(*args, **kwargs)
    except (Exception, Suspend):
        raise
    except BaseException as error:  # noqa: BLE001
        raise TaskExit.of(error) from None


# A process has no object of ours that calls could be made on, only modules. This is that object.
_process = _Process()


def prepare(*references: str) -> None:
    """Import what the first call will need, before its time is taken."""
    for reference in references:
        try:
            if reference.startswith("__main__:"):
                load(_process.main)
            resolve(reference)
        except BaseException:  # noqa: BLE001, S112 -- the call itself will say it better
            continue


def run(data: bytes) -> bytes:
    """Unpack a call, run it, and pack how it ended. Never raises."""
    _process.calling = False
    try:
        if b"__main__" in data:
            load(_process.main)
        parcel: Parcel = pickle.loads(data)  # noqa: S301 -- from our own parent, over a private pipe
        value = _process.call(parcel)
    except BaseException as error:  # noqa: BLE001 -- whatever it is, it is the caller's
        return pack_error(error, ran=_process.calling)
    finally:
        _flush()
    return pack_value(value, parcel.task)


def _flush() -> None:
    """Show what was printed: a process that is killed during a later call would take it along."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or replaced by something odd
            stream.flush()


def finish() -> None:
    """Tear down, before the process ends."""
    _process.close()
