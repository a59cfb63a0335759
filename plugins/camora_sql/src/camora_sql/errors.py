"""Conditions that are settled inside the plugin."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from camora.errors import BrokerUnavailable, ConfigurationError

from camora_sql.schema import HEAD

__all__ = ["CommitUnclear", "Garbled", "Held", "newer", "require"]


class Garbled(Exception):
    """The driver could not read a value of a row."""


class Held(BrokerUnavailable):
    """Others held what was needed, for longer than it was waited for; the server is well."""


class CommitUnclear(BrokerUnavailable):
    """The commit failed in a way that leaves open whether it happened."""


def require(url: str, modules: Sequence[str], extra: str) -> None:
    """Raises `ConfigurationError` when one of these modules, which the URL's driver needs, is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        scheme = url.partition("://")[0]
        raise ConfigurationError(
            f"{scheme}:// needs {' and '.join(missing)}, which is not installed: pip install 'camora-sql[{extra}]'"
        )


def newer(label: str, revision: str) -> ConfigurationError:
    """The schema is of a later version than this code."""
    return ConfigurationError(
        f"{label} has schema revision {revision!r}, which this camora-sql (it knows up to {HEAD!r}) does not: "
        "it was made by a newer one; upgrade here: pip install --upgrade camora-sql"
    )
