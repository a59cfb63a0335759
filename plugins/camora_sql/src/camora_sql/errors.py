"""Conditions that are settled inside the plugin."""

from __future__ import annotations

from camora.errors import BrokerUnavailable, ConfigurationError

from camora_sql.schema import HEAD

__all__ = ["CommitUnclear", "Garbled", "newer"]


class Garbled(Exception):
    """The driver could not read a value of a row."""


class CommitUnclear(BrokerUnavailable):
    """The commit failed in a way that leaves open whether it happened."""


def newer(label: str, revision: str) -> ConfigurationError:
    """The schema is of a later version than this code."""
    return ConfigurationError(
        f"{label} has schema revision {revision!r}, which this camora-sql (it knows up to {HEAD!r}) does not: "
        "it was made by a newer one; upgrade here: pip install --upgrade camora-sql"
    )
