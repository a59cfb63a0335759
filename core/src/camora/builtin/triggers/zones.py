"""Time zones by name."""

from __future__ import annotations

import difflib
from zoneinfo import ZoneInfo, available_timezones

__all__ = ["zone_named"]


def zone_named(name: object) -> ZoneInfo:
    """The zone of this name. Raises `ValueError` with the nearest name."""
    if isinstance(name, str) and name:
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, LookupError):
            pass
        known = available_timezones()
        folded = {zone.lower(): zone for zone in known}
        near = difflib.get_close_matches(name.lower(), folded, n=1)
        if near:
            raise ValueError(f"tz={name!r}: there is no such time zone; did you mean {folded[near[0]]!r}?")
    raise ValueError(f'tz={name!r}: expected the name of a time zone, such as "UTC" or "Europe/Paris"')
