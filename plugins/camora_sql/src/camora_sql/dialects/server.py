"""What databases that are servers have in common."""

from __future__ import annotations

import asyncio

from camora.clock import Clock
from sqlalchemy.util.concurrency import await_

from camora_sql.dialects.base import Dialect, Driver
from camora_sql.drivers.errors import ServerError

__all__ = ["ServerDialect"]


class ServerDialect(Dialect):
    """Its driver is one of an event loop's, and its clock is the one that counts."""

    blocking = False
    driver_error = ServerError

    def pause(self, seconds: float) -> None:
        """The greenlet sleeps."""
        await_(asyncio.sleep(seconds))

    def rollback(self, driver: Driver) -> None:
        """ROLLBACK; a connection that is gone has done it by going."""
        try:
            driver.change("ROLLBACK")
        except ServerError:
            driver.abort()

    def is_garbled(self, error: Exception) -> bool:
        """A server checks what it stores."""
        return False

    def tolerate(self, driver: Driver, *, garbled: bool) -> None:
        """There is nothing to tolerate."""

    def breaks_connection(self, error: Exception) -> bool:
        """As the driver says."""
        return isinstance(error, ServerError) and error.broken

    def exists(self) -> bool:
        """A server's database is not ours to make."""
        return True

    def lease_clock(self, clock: Clock) -> int:
        """The server has one."""
        raise NotImplementedError

    def lease_epoch(self) -> str:
        """Its clock never starts anew."""
        return ""

    def announce(self) -> None:
        """Done by the hub, over the wire."""
