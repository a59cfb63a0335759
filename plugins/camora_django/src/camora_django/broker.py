"""The SQL broker in a database of Django's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from camora.clock import SYSTEM_CLOCK, Clock
from camora.errors import ConfigurationError
from camora.message import Envelope
from camora_sql.broker import SqlBroker
from camora_sql.settings import SqlSettings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from camora_django.databases import alias_of, are_same, is_in_memory, url_of
from camora_django.publishing import Within, publish

__all__ = ["DjangoBroker"]


class DjangoBroker(SqlBroker):
    """As `SqlBroker`, with the address that `settings.DATABASES` has: `django://ALIAS`.

    `options(connection=…)` also takes a connection of Django's, such as `connections["default"]`.
    """

    def __init__(self, url: str, settings: SqlSettings | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.alias = alias_of(url)
        """Which of `settings.DATABASES`."""
        self._address = url_of(self.alias)
        self._same = {self.alias}
        """Aliases of this very database."""
        super().__init__(_with_query(self._address, url), settings, clock=clock)

    joins = False
    """Whether its app dispatches into Django's transactions, as `DjangoCamora` does."""

    async def open(self) -> None:
        """Connect, beside Django's connections; make or check the schema."""
        if not self.joins:
            raise ConfigurationError(self.why_not())
        self._check_address()
        await super().open()

    def _check_address(self) -> None:
        if is_in_memory(self.alias):
            raise ConfigurationError(
                f"the database {self.alias!r} is in memory, where only Django's own connection sees it: workers, and "
                "whatever does not go over that connection, need a file, or PostgreSQL"
            )
        if url_of(self.alias) != self._address:
            raise ConfigurationError(
                f"the database {self.alias!r} is another one than when the app was made, as in Django's tests: there "
                "only dispatch_sync works, over Django's own connection; give workers an app that is made for them"
            )

    def twin(self) -> DjangoBroker:
        """Another broker on the same database, with a connection of its own."""
        twin = super().twin()
        twin.alias, twin.joins = self.alias, self.joins
        twin._address, twin._same = self._address, self._same  # noqa: SLF001 -- its own class
        return twin

    def why_not(self) -> str:
        """Why it is not opened for an app that does not."""
        return (
            f"django://{self.alias} in a plain Camora dispatches outside of Django's transactions; make the app a "
            "DjangoCamora:  from camora_django import DjangoCamora"
        )

    async def publish_within(self, connection: Any, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """In the transaction of a connection of Django's; of others, as `SqlBroker`."""
        if isinstance(connection, str):
            raise ConfigurationError(
                f"options(connection={connection!r}): that is a name; give the connection: connections[{connection!r}]"
                "  (from django.db import connections)"
            )
        if isinstance(connection, BaseDatabaseWrapper):
            connection = Within(connection)
        if not isinstance(connection, Within):
            return await super().publish_within(connection, envelopes)
        if not envelopes:
            return []
        if asyncio._get_running_loop() is None:  # noqa: SLF001 -- `get_running_loop`, without an exception
            return self._publish_within(connection, envelopes)
        # Connections of Django's belong to threads.
        return await sync_to_async(self._publish_within, thread_sensitive=True)(connection, envelopes)

    def _publish_within(self, within: Within, envelopes: Sequence[Envelope]) -> Sequence[str]:
        alias = within.connection.alias
        if alias not in self._same:
            if not are_same(within.connection, connections[self.alias]):
                raise ConfigurationError(
                    f"options(connection=connections[{alias!r}]): that is another database than {self.alias!r}, where "
                    f"this app's jobs are; give connections[{self.alias!r}], and its transaction.atomic("
                    f"using={self.alias!r})"
                )
            self._same.add(alias)
        return publish(self._procedures, within, envelopes)


def _with_query(address: str, url: str) -> str:
    query = url.partition("?")[2]
    return address + (f"{'&' if '?' in address else '?'}{query}" if query else "")
