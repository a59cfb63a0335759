"""What the client library logs by itself: each state of each link, and each request, as if they were news."""

from __future__ import annotations

import logging

__all__ = ["hush"]

_TALKERS = ("azure.servicebus", "azure.identity", "azure.core.pipeline.policies.http_logging_policy")


def hush() -> None:
    """Leave its news out, but not its warnings.

    Whoever has said a level for it, or logs everything for debugging, sees all. May be repeated, in any thread.
    """
    for name in _TALKERS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET and logger.getEffectiveLevel() > logging.DEBUG:
            logger.setLevel(logging.WARNING)
