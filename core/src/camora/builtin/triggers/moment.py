"""A single moment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs

__all__ = ["Once", "aware_moment"]


def aware_moment(name: str, value: Any) -> datetime:
    """An aware datetime in UTC, from one or from its ISO 8601 text. Raises `ValueError`."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f'{name}={value!r}: expected a moment such as "2030-01-31T09:00:00Z"') from None
    if not isinstance(value, datetime):
        raise ValueError(f"{name}={value!r}: expected an aware datetime")  # noqa: TRY004 -- one kind for all mistakes
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError(
            f"{name}={value.isoformat()}: has no time zone; give an aware datetime, such as "
            "datetime(2030, 1, 31, 9, tzinfo=UTC)"
        )
    # Stored schedules count milliseconds.
    return value.astimezone(UTC).replace(microsecond=value.microsecond // 1000 * 1000)


def _at(value: Any) -> datetime:
    return aware_moment("at", value)


@attrs.frozen
class Once:
    """One moment, and never again: `at` is an aware datetime, or its ISO 8601 text."""

    at: Any = attrs.field(converter=_at)

    def next_after(self, moment: datetime) -> datetime | None:
        """See `Trigger`."""
        at: datetime = self.at
        return at if at > moment else None

    def describe(self) -> dict[str, Any]:
        """See `Trigger`."""
        return {"use": "once", "at": self.at.isoformat()}
