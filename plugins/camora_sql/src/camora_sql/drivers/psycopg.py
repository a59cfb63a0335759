"""psycopg 3."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from sqlalchemy.util.concurrency import await_

from camora_sql.drivers.errors import ServerError, told, unsent

__all__ = ["PsycopgDriver", "PsycopgListener", "connect", "listen"]

R = TypeVar("R")

_LOOK_EVERY = 10.0
"""Seconds. The event loop tells when there is something to read; psycopg's own tenth of a second costs idle time."""


class Raw(psycopg.AsyncConnection[Any]):
    """A connection that ends when a call is interrupted.

    psycopg's own would ask the server to cancel the statement, and wait for it, ten seconds if nobody answers.
    """

    async def wait(self, gen: Any, interval: float = _LOOK_EVERY, timeout: float | None = None) -> Any:
        """Wait for the server."""
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


class PsycopgDriver:
    """A connection in autocommit. Statements are prepared by psycopg when they come often."""

    def __init__(self, raw: Raw, timeout: float) -> None:
        self._raw = raw
        self._cursor = psycopg.AsyncRawCursor(raw)
        self._timeout = timeout
        self._broken = False

    def rows(self, text: str, values: Sequence[Any] = ()) -> Sequence[Any]:
        """Run a statement; all its rows."""
        found: Sequence[Any] = await_(self._run(self._rows(text, values)))
        return found

    async def _rows(self, text: str, values: Sequence[Any]) -> Sequence[Any]:
        await self._cursor.execute(text, values or None, binary=True)
        return await self._cursor.fetchall()

    def change(self, text: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""
        return await_(self._run(self._change(text, values)))

    async def _change(self, text: str, values: Sequence[Any]) -> int:
        await self._cursor.execute(text, values or None)
        return max(0, self._cursor.rowcount)

    async def _run(self, running: Awaitable[R]) -> R:
        if self._broken or self._raw.closed:
            running.close()  # type: ignore[attr-defined]
            raise unsent()
        try:
            async with asyncio.timeout(self._timeout):
                return await running
        except psycopg.DataError as error:
            # Without a code it is the driver that could not send a value.
            raise told(_said(error), code=error.sqlstate or "22021", broken=False) from error
        except psycopg.Error as error:
            self._broken = self._raw.closed
            raise told(_said(error), code=error.sqlstate or "", broken=self._broken) from error
        except TimeoutError as error:
            self.abort()
            raise ServerError(f"no answer within {self._timeout:g} s", broken=True) from error
        except OSError as error:
            self.abort()
            raise ServerError(str(error), broken=True) from error
        except asyncio.CancelledError:
            # In the middle of something: whatever comes next on this connection may be the answer to that.
            self.abort()
            raise

    def close(self) -> None:
        """Say goodbye to the server."""
        self.abort()

    def abort(self) -> None:
        """Close it; that is no more than a message and the end of the socket."""
        self._broken = True
        _cut(self._raw)


def _cut(raw: Raw) -> None:
    with contextlib.suppress(Exception):  # whatever it is in the middle of
        raw.pgconn.finish()


async def _connected(dsn: str, timeout: float) -> Raw:
    try:
        async with asyncio.timeout(timeout):
            return await Raw.connect(dsn, autocommit=True)
    except psycopg.ProgrammingError as error:  # of the URL
        raise ServerError(str(error), code=error.sqlstate or "22023", broken=True, connecting=True) from error
    except psycopg.Error as error:
        # The lines behind the first advise, as we do.
        text = (str(error).splitlines() or [""])[0]
        raise ServerError(text, code=_code(error), broken=True, connecting=True) from error
    except OSError as error:  # TimeoutError is one
        text = str(error) or f"no answer within {timeout:g} s"
        raise ServerError(text, broken=True, connecting=True) from error


def _said(error: psycopg.Error) -> str:
    """The message alone; the driver adds the statement."""
    return error.diag.message_primary or str(error)


_WORDS = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "too many clients": "53300",
    "remaining connection slots": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
    "unrecognized configuration parameter": "42704",
}


def _code(error: psycopg.Error) -> str:
    """The driver does not tell the code of a refused connection; the server's words do."""
    text = str(error)
    if "database" in text and "does not exist" in text:
        return "3D000"
    return error.sqlstate or next((code for words, code in _WORDS.items() if words in text), "")


def connect(dsn: str, *, connect_timeout: float, network_timeout: float, setup: str) -> PsycopgDriver:
    """A new connection, set up with these statements. In a greenlet."""
    driver = PsycopgDriver(await_(_connected(dsn, connect_timeout)), network_timeout)
    try:
        driver.change(setup)
    except BaseException:
        driver.abort()
        raise
    return driver


class PsycopgListener:
    """A connection that hears notifications."""

    def __init__(self, raw: Raw, timeout: float, heard: Callable[[str], None]) -> None:
        self._raw = raw
        self._timeout = timeout
        self._heard = heard

    async def hear(self, seconds: float) -> None:
        """Listen for so long. Raises `ServerError` when the connection is gone."""
        try:
            async for said in self._raw.notifies(timeout=seconds):
                self._heard(said.payload)
        except (OSError, psycopg.Error) as error:
            raise ServerError(str(error), broken=True) from error

    async def ask(self, text: str) -> Any:
        """The first value of the first row; also shows that the connection still works. Raises `ServerError`."""
        try:
            async with asyncio.timeout(self._timeout):
                [value] = await (await self._raw.execute(text)).fetchone() or [None]
                return value
        except (OSError, psycopg.Error) as error:
            raise ServerError(str(error), broken=True) from error

    def abort(self) -> None:
        """Cut it."""
        _cut(self._raw)


async def listen(dsn: str, *, timeout: float, channel: str, heard: Callable[[str], None]) -> PsycopgListener:
    """Listen on a channel; `heard` gets the payloads. Raises `ServerError`."""
    raw = await _connected(dsn, timeout)
    try:
        async with asyncio.timeout(timeout):
            await raw.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
    except BaseException as error:
        _cut(raw)
        if isinstance(error, (OSError, psycopg.Error)):
            raise ServerError(str(error), broken=True, connecting=True) from error
        raise
    return PsycopgListener(raw, timeout, heard)
