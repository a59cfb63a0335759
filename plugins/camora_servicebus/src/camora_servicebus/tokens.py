"""Tokens of a credential that belongs to the app."""

from __future__ import annotations

import asyncio
import time
from typing import Any

__all__ = ["Tokens"]

_SPARE = 600.0
"""Seconds: a token that lasts longer is given to the next connection, too."""


class Tokens:
    """Asks a credential for a token once for all connections of a loop, in the loop where the credential lives.

    Credentials of azure-identity keep an HTTP session, which belongs to one event loop; workers connect in another.
    Belongs to the loop of its first use.
    """

    def __init__(self, credential: Any, home: asyncio.AbstractEventLoop | None = None) -> None:
        self._credential = credential
        self._home = home
        self._kept: dict[tuple[str, ...], Any] = {}
        self._turn: asyncio.Lock | None = None

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        """A token, as the client library wants it."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            found = self._kept.get(scopes)
            if found is None or found.expires_on - time.time() < _SPARE:
                found = self._kept[scopes] = await self._ask(scopes, options)
            return found

    async def _ask(self, scopes: tuple[str, ...], options: dict[str, Any]) -> Any:
        home = self._home
        if home is None or home is asyncio.get_running_loop() or not home.is_running():
            return await self._credential.get_token(*scopes, **options)
        asked = asyncio.run_coroutine_threadsafe(self._credential.get_token(*scopes, **options), home)
        return await asyncio.wrap_future(asked)
