"""Errors of a call, as those who made it know them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from camora_redis.errors import ConnectionLost, ServerError, unavailable
from camora_redis.link import Link

__all__ = ["answered"]

T = TypeVar("T")


async def answered(link: Link, call: Awaitable[T]) -> T:
    """The answer of a call that may be repeated. Raises `BrokerUnavailable` for whatever went wrong."""
    try:
        return await call
    except (ConnectionLost, ServerError) as error:
        raise unavailable(link.who, error) from error
