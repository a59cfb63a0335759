"""What is wrong, said once."""

from __future__ import annotations

import logging

__all__ = ["Troubles"]


class Troubles:
    """Logs the first failure of each schedule, another one only when it is another one, and that it is over."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: dict[str, str] = {}

    def failed(self, key: str, error: BaseException) -> None:
        """It could not fire this time."""
        text = f"{type(error).__name__}: {error}"
        if self._told.get(key) != text:
            self._told[key] = text
            self._logger.error("schedule %s cannot fire, and is tried again: %s", key, text, exc_info=error)

    def fine(self, key: str) -> None:
        """It has fired."""
        if self._told.pop(key, None) is not None:
            self._logger.info("schedule %s fires again", key)
