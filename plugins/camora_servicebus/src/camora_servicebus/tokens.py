"""Tokens of a credential that belongs to the app."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

__all__ = ["Tokens"]

logger = logging.getLogger(__name__)

_SPARE = 600.0
"""Seconds: a token that lasts longer is given to the next connection, too."""
_LAST = 5.0
"""Seconds: one that lasts no longer is of no use."""
_MOMENT = 0.5
"""Seconds for which who has a token waits for the next one: a connection reads nothing meanwhile."""


class Tokens:
    """Asks a credential for a token once for all connections of a loop, in the loop where the credential lives.

    Credentials of azure-identity keep an HTTP session, which belongs to one event loop; workers connect in another.
    While a token lasts, a credential that fails, or takes its time, disturbs nobody. Belongs to the loop of its first
    use; close it.
    """

    def __init__(self, credential: Any, home: asyncio.AbstractEventLoop | None = None) -> None:
        self._credential = credential
        self._home = home
        self._kept: dict[tuple[str, ...], Any] = {}
        self._coming: dict[tuple[str, ...], asyncio.Task[Any]] = {}
        """Those that are asked for while the one before still lasts."""
        self._turn: asyncio.Lock | None = None

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        """A token, as the client library wants it. Raises what the credential raises."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            found = self._kept.get(scopes)
            left = 0.0 if found is None else found.expires_on - time.time()
            if left < _LAST:
                found = self._kept[scopes] = await self._ask(scopes, options)
            elif left < _SPARE:
                found = self._kept[scopes] = await self._next(scopes, options, found)
            return found

    async def _next(self, scopes: tuple[str, ...], options: dict[str, Any], found: Any) -> Any:
        """The next one if it comes at once, or has come since; else the one that there is."""
        coming = self._coming.get(scopes)
        if coming is None:
            coming = self._coming[scopes] = asyncio.ensure_future(self._ask(scopes, options))
        await asyncio.wait({coming}, timeout=_MOMENT)
        if not coming.done():
            return found
        del self._coming[scopes]
        error = None if coming.cancelled() else coming.exception()
        if error is not None:
            logger.info("the credential gives no new token; the one before lasts a while: %s", type(error).__name__)
        return found if error is not None or coming.cancelled() else coming.result()

    async def _ask(self, scopes: tuple[str, ...], options: dict[str, Any]) -> Any:
        home = self._home
        if home is None or home is asyncio.get_running_loop() or not home.is_running():
            return await self._credential.get_token(*scopes, **options)
        asked = asyncio.run_coroutine_threadsafe(self._credential.get_token(*scopes, **options), home)
        return await asyncio.wrap_future(asked)

    async def close(self) -> None:
        """Wait for no token any more."""
        coming, self._coming = list(self._coming.values()), {}
        for one in coming:
            one.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
