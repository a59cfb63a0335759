"""How many messages there are, as the service itself counts them: only its management interface says so."""

from __future__ import annotations

import time
from collections.abc import Mapping

from camora.errors import BrokerUnavailable, ConfigurationError

from camora_servicebus.admin import Admin
from camora_servicebus.admin_errors import NotAllowed
from camora_servicebus.store import Store
from camora_servicebus.topics import split

__all__ = ["Counting"]

_PAUSE = 60.0
"""Seconds for which an interface that did not answer is left alone."""


class Counting:
    """Asks as long as it may. Belongs to the event loop in which it is first used."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._admin: Admin | None = None
        self._not_before = 0.0

    async def of(self, entity: str) -> Mapping[str, int] | None:
        """Counts by their names in Camora, empty where there is no such entity; None: the service does not say."""
        if time.monotonic() < self._not_before:
            return None
        if self._admin is None:
            self._admin = Admin(self._store)
        try:
            topic, subscription = split(entity)
            found = await (
                self._admin.counts("subscription", (topic, subscription))
                if subscription
                else self._admin.counts("queue", (entity,))
            )
        except NotAllowed:
            self._not_before = float("inf")  # most keys are for messages alone, and stay so
            return None
        except (BrokerUnavailable, ConfigurationError):
            self._not_before = time.monotonic() + _PAUSE
            return None
        if found is None:
            return {}
        return {"ready": found.active, "scheduled": found.scheduled, "dead": found.dead}

    async def close(self) -> None:
        """Let go of its connection."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
