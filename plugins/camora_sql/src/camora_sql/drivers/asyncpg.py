"""asyncpg."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
from sqlalchemy.util.concurrency import await_

from camora_sql.drivers.errors import ServerError, told, unsent

__all__ = ["AsyncpgDriver", "AsyncpgListener", "connect", "listen"]

_CLIENT = (asyncpg.InternalClientError, asyncpg.InterfaceError)


class AsyncpgDriver:
    """A connection in autocommit. Statements are prepared by asyncpg when they come for the first time."""

    def __init__(self, raw: asyncpg.Connection, timeout: float) -> None:
        self._raw = raw
        self._timeout = timeout
        self._broken = False

    def rows(self, text: str, values: Sequence[Any] = ()) -> Sequence[Any]:
        """Run a statement; all its rows."""
        found: Sequence[Any] = await_(self._run(self._raw.fetch(text, *values, timeout=self._timeout)))
        return found

    def change(self, text: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""
        told: str = await_(self._run(self._raw.execute(text, *values, timeout=self._timeout)))
        # "INSERT 0 5", "UPDATE 5", "BEGIN"
        count = told.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def _run(self, running: Any) -> Any:
        if self._broken or self._raw.is_closed():
            running.close()
            raise unsent()
        try:
            return await running
        except asyncpg.PostgresError as error:
            self._broken = self._raw.is_closed()
            raise told(
                str(error.args[0] if error.args else error), code=error.sqlstate or "", broken=self._broken
            ) from error
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):
                # A value that the driver could not send: the connection is as good as before.
                raise UnicodeError(str(error)) from error
            self.abort()
            raise ServerError(str(error), broken=True) from error
        except TimeoutError as error:
            self.abort()
            raise ServerError(f"no answer within {self._timeout:g} s", broken=True) from error
        except (OSError, asyncpg.InternalClientError) as error:
            self.abort()
            raise ServerError(str(error) or type(error).__name__, broken=True) from error
        except asyncio.CancelledError:
            # In the middle of something: whatever comes next on this connection may be the answer to that.
            self.abort()
            raise

    def close(self) -> None:
        """Say goodbye to the server."""
        if self._broken:
            return
        self._broken = True
        with contextlib.suppress(OSError, asyncpg.PostgresError, *_CLIENT):
            await_(self._raw.close(timeout=1.0))

    def abort(self) -> None:
        """Cut it."""
        self._broken = True
        _cut(self._raw)


def _cut(raw: asyncpg.Connection) -> None:
    with contextlib.suppress(Exception):  # a closed loop, a connection that is half closed
        raw.terminate()


async def _connected(dsn: str, timeout: float, options: dict[str, Any]) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(dsn, timeout=timeout, **options)
    except asyncpg.PostgresError as error:
        raise ServerError(str(error), code=error.sqlstate or "", broken=True, connecting=True) from error
    except (TimeoutError, socket.gaierror, OSError, ValueError, *_CLIENT) as error:
        text = str(error) or f"no answer within {timeout:g} s"
        raise ServerError(text, broken=True, connecting=True) from error


def connect(dsn: str, *, connect_timeout: float, network_timeout: float, setup: str) -> AsyncpgDriver:
    """A new connection, set up with these statements. In a greenlet."""
    raw = await_(_connected(dsn, connect_timeout, {"statement_cache_size": 500}))
    driver = AsyncpgDriver(raw, network_timeout)
    try:
        driver.change(setup)
    except BaseException:
        driver.abort()
        raise
    return driver


class AsyncpgListener:
    """A connection that hears notifications."""

    def __init__(self, raw: asyncpg.Connection, timeout: float) -> None:
        self._raw = raw
        self._timeout = timeout
        self._lost = asyncio.Event()
        raw.add_termination_listener(lambda _: self._lost.set())

    async def hear(self, seconds: float) -> None:
        """Listen for so long. Raises `ServerError` when the connection is gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lost.wait()
                raise ServerError("the connection is gone", broken=True)

    async def ask(self, text: str) -> Any:
        """The first value of the first row; also shows that the connection still works. Raises `ServerError`."""
        try:
            return await self._raw.fetchval(text, timeout=self._timeout)
        except (OSError, asyncpg.PostgresError, *_CLIENT) as error:  # TimeoutError is an OSError
            raise ServerError(str(error), broken=True) from error

    def abort(self) -> None:
        """Cut it."""
        _cut(self._raw)


async def listen(dsn: str, *, timeout: float, channel: str, heard: Callable[[str], None]) -> AsyncpgListener:
    """Listen on a channel; `heard` gets the payloads. Raises `ServerError`."""
    raw = await _connected(dsn, timeout, {})
    try:
        async with asyncio.timeout(timeout):
            await raw.add_listener(channel, lambda *said: heard(str(said[3])))
    except BaseException as error:
        _cut(raw)
        if isinstance(error, (OSError, asyncpg.PostgresError, *_CLIENT)):
            raise ServerError(str(error), broken=True, connecting=True) from error
        raise
    return AsyncpgListener(raw, timeout)
