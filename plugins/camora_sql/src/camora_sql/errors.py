"""Conditions that are settled inside the plugin."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from camora.errors import BrokerUnavailable, ConfigurationError

from camora_sql.schema import HEAD

if TYPE_CHECKING:
    from camora_sql.dialects.base import Dialect

__all__ = ["CommitUnclear", "Garbled", "Held", "migrate_command", "newer", "require"]


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


def migrate_command(dialect: Dialect) -> str:
    """What to type to make these tables, or to bring them up to date."""
    masked = "  (with the secret for ***)" if "***" in dialect.address else ""
    return f"camora sql migrate --url {shlex.quote(dialect.address)}{masked}"
