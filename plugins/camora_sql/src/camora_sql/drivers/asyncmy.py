"""asyncmy.

Statements may be put off: they go to the server in one text with the next one, and so cost no round trip of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import asyncmy
from asyncmy.constants import CLIENT
from asyncmy.errors import MySQLError
from sqlalchemy.util.concurrency import await_

from camora_sql.drivers.errors import ServerError, unsent

__all__ = ["AsyncmyDriver", "connect"]

_TEXTS = frozenset({1300, 1366, 3854})  # what is no text in the column's character set
_SIZES = frozenset({1264, 1406, 1690})  # a number or a text that the column does not hold
_LOST = frozenset({1053, 1153, 1158, 1159, 1160, 1161, 1927, 3169, 4031})
_LEAST_PACKET = 2**16

Value = int | float | str | bytes | None


class AsyncmyDriver:
    """A connection in autocommit.

    `largest` is the size of a text that the server takes, in bytes. Values are written into the texts: only so can
    several statements travel together.
    """

    def __init__(self, raw: Any, timeout: float) -> None:
        self._raw = raw
        self._timeout = timeout
        self._broken = False
        self._later: list[bytes] = []
        self._size = 0
        self._begun = False
        self._deferring = False
        self.largest = _LEAST_PACKET
        self.locked = False
        """Whether it holds a lock by a name, which outlives transactions."""

    @property
    def version(self) -> str:
        """What the server says of itself."""
        return str(self._raw.get_server_info())

    # Statements

    def rows(self, text: str, values: Sequence[Any] = ()) -> Sequence[Any]:
        """Run a statement, after what was put off; all its rows."""
        return self._send(self._written(text, values)).rows or ()

    def change(self, text: str, values: Sequence[Any] = ()) -> int:
        """Run a statement, after what was put off; how many rows it found. Within `deferring` it is put off: 0."""
        if self._deferring:
            self.later(text, values)
            return 0
        return int(self._send(self._written(text, values)).affected_rows)

    def later(self, text: str, values: Sequence[Any] = ()) -> None:
        """Put a statement off. What is wrong with its values is found now."""
        written = self._written(text, values)
        if self._later and self._size + len(written) > self.largest:
            self._send(written)
            return
        self._later.append(written)
        self._size += len(written) + 1

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Put off all changes, whose counts nobody asks for."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    # Transactions

    def begin(self) -> None:
        """Begin a transaction with the next statement."""
        self.later("START TRANSACTION")

    def commit(self) -> None:
        """Make it stand, with what was put off; nothing happens where nothing was asked for."""
        if self._begun or len(self._later) > 1:
            self._send(b"COMMIT")
        self._forget()

    def rollback(self) -> None:
        """Undo it."""
        begun = self._begun
        self._forget()
        if begun:
            self._send(b"ROLLBACK")
            self._begun = False

    def _forget(self) -> None:
        self._later.clear()
        self._size = 0
        self._begun = False

    # The wire

    def _written(self, text: str, values: Sequence[Any]) -> bytes:
        # Bytes stand in it as halves of characters, which is what the driver makes of them.
        written = (text % tuple(map(self._literal, values))).encode("utf-8", "surrogateescape")
        if len(written) > self.largest:
            raise OverflowError(
                f"it takes {len(written)} bytes, and the server takes {self.largest} at once; raise its "
                "max_allowed_packet, or keep large data elsewhere"
            )
        return written

    def _literal(self, value: Value) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise OverflowError(f"{value} has more than 64 bits")
            return str(int(value))
        if isinstance(value, str):
            if not value.isascii():
                value.encode()  # halves of characters are refused here, before anything is sent
            return f"'{self._raw.escape_string(value)}'"
        if isinstance(value, float) and not math.isfinite(value):
            raise OverflowError(f"{value} is no number that can be stored")
        return str(self._raw.escape(value))

    def _send(self, written: bytes) -> Any:
        if self._later and self._size + len(written) > self.largest:
            self._flush()
        texts = [*self._later, written]
        self._later.clear()
        self._size = 0
        self._begun = True
        return await_(self._run(b";".join(texts)))

    def _flush(self) -> None:
        texts, self._later = self._later, []
        self._size = 0
        self._begun = True
        await_(self._run(b";".join(texts)))

    async def _run(self, text: bytes) -> Any:
        """The result of the last statement; those after one that failed are not run by the server."""
        if self._broken:
            raise unsent()
        raw = self._raw
        try:
            async with asyncio.timeout(self._timeout):
                # Not by a cursor, which would ask for every warning there is, in a trip of its own.
                await raw.query(text)
                while raw._result.has_next:  # noqa: SLF001 -- it has no other name
                    await raw.next_result()
                return raw._result  # noqa: SLF001
        except MySQLError as error:
            raise self._told(error) from error
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

    def _told(self, error: MySQLError) -> Exception:
        code, text = _code_of(error)
        if code in _TEXTS:
            return UnicodeError(text)
        if code in _SIZES:
            return OverflowError(text)
        # Below 1000, and from 2000 to 2999, it is the client that complains: of the connection.
        if code in _LOST or code < 1000 or 2000 <= code < 3000 or not self._raw.connected:
            self.abort()
        return ServerError(text, code=str(code or ""), broken=self._broken)

    # Life

    def close(self) -> None:
        """Say goodbye to the server."""
        if self._broken:
            return
        self._broken = True
        with contextlib.suppress(OSError, MySQLError, TimeoutError):
            await_(asyncio.wait_for(self._raw.ensure_closed(), 1.0))

    def abort(self) -> None:
        """Cut it."""
        self._broken = True
        with contextlib.suppress(Exception):  # a closed loop, a connection that is half closed
            # Closing alone would wait for what is still to be sent.
            if transport := getattr(self._raw, "_transport", None):
                transport.abort()
            self._raw.close()


def _code_of(error: MySQLError) -> tuple[int, str]:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    return code, str(error.args[-1] if error.args else error)


async def _connected(timeout: float, options: Mapping[str, Any]) -> Any:
    try:
        async with asyncio.timeout(timeout):
            # Changes are counted by the rows they found, be they the same afterwards.
            return await asyncmy.connect(**options, autocommit=True, client_flag=CLIENT.FOUND_ROWS)
    except MySQLError as error:
        code, text = _code_of(error)
        raise ServerError(text, code=str(code or ""), broken=True, connecting=True) from error
    except RuntimeError as error:  # a way to log in that needs another package
        raise ServerError(str(error), code="2059", broken=True, connecting=True) from error
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        text = str(error) or f"no answer within {timeout:g} s"
        raise ServerError(text, broken=True, connecting=True) from error


def connect(*, connect_timeout: float, network_timeout: float, options: Mapping[str, Any]) -> AsyncmyDriver:
    """A new connection. In a greenlet."""
    return AsyncmyDriver(await_(_connected(connect_timeout, options)), network_timeout)
