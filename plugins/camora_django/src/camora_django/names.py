"""What Camora's tables are called in this project."""

from __future__ import annotations

from camora.errors import CamoraError
from camora_sql.settings import PREFIX, SqlSettings, split_url
from django.conf import settings

__all__ = ["table_name"]


def table_name(name: str) -> str:
    """For `db_table`: with the prefix and the schema that `settings.CAMORA` gives its broker."""
    prefix, schema = _prefix_and_schema()
    # Django quotes the whole, and so the quotes in the middle end one name and begin another.
    return f'{schema}"."{prefix}{name}' if schema else f"{prefix}{name}"


def _prefix_and_schema() -> tuple[str, str | None]:
    given = getattr(settings, "CAMORA", {})
    broker = given.get("broker") if isinstance(given, dict) else None
    if not isinstance(broker, dict):
        return PREFIX, None
    try:
        found = SqlSettings(**{name: broker[name] for name in ("prefix", "schema") if name in broker})
        _, found = split_url(str(broker.get("url", "")), found, keep_others=True)
    except (CamoraError, TypeError, ValueError):
        return PREFIX, None  # what is wrong is told when the app is made, with its place
    return found.prefix, found.schema
