"""Addresses: a database of `settings.DATABASES` as Camora's own connections find it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from camora.errors import ConfigurationError
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.connection import ConnectionDoesNotExist

__all__ = ["alias_of", "are_same", "is_in_memory", "url_of"]

_SCHEME = "django"
# What means something to Django, and nothing to the client library.
_DJANGOS = {"assume_role", "cursor_factory", "isolation_level", "pool", "server_side_binding"}


def alias_of(url: str) -> str:
    """The alias in `django://ALIAS`; `default` where there is none. Raises `ConfigurationError` for other URLs."""
    scheme, _, rest = url.partition("://")
    alias = rest.partition("?")[0].strip("/") or "default"
    if scheme != _SCHEME or not alias.isidentifier():
        raise ConfigurationError(
            f"{url!r}: write django://ALIAS, with an alias of settings.DATABASES: django://default"
        )
    return alias


def connection_settings(alias: str) -> tuple[str, Mapping[str, Any]]:
    """What kind of database it is, and what Django knows of it now: tests change its name. No I/O."""
    try:
        connection = connections[alias]
    except ImproperlyConfigured as error:
        raise ConfigurationError(
            f"{_SCHEME}://{alias} is a database of a Django project, and there is none here: "
            f"set DJANGO_SETTINGS_MODULE, or use manage.py camora ({error})"
        ) from None
    except ConnectionDoesNotExist:
        known = ", ".join(connections.settings)
        raise ConfigurationError(f"settings.DATABASES has no {alias!r}; it has {known}") from None
    return connection.vendor, connection.settings_dict


def is_in_memory(alias: str) -> bool:
    """Whether it is one of SQLite's databases in memory, which only Django's own connection sees."""
    vendor, given = connection_settings(alias)
    name = str(given["NAME"])
    return vendor == "sqlite" and (name == ":memory:" or "mode=memory" in name)


def url_of(alias: str) -> str:
    """Its URL, as camora-sql takes it, password included. Raises `ConfigurationError` for a kind that it lacks."""
    vendor, given = connection_settings(alias)
    if vendor == "sqlite":
        return f"sqlite:///{given['NAME']}"
    if vendor == "postgresql":
        return _postgresql(given)
    raise ConfigurationError(
        f"the database {alias!r} of settings.DATABASES is {vendor}; Camora's tables can be in SQLite and PostgreSQL. "
        'Give another one, or another broker: CAMORA = {"broker": {"url": …}}'
    )


def are_same(one: BaseDatabaseWrapper, other: BaseDatabaseWrapper) -> bool:
    """Whether two connections are to one database; PostgreSQL's are asked where the settings differ, as by a pooler.

    Blocks; raises what Django raises.
    """
    if one.vendor != other.vendor:
        return False
    if _place(one) == _place(other):
        return True
    return one.vendor == "postgresql" and _identity(one) == _identity(other)


def _place(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    given = connection.settings_dict
    if connection.vendor == "sqlite" and not is_in_memory(connection.alias):
        return (str(Path(given["NAME"]).resolve()),)
    return tuple(str(given.get(key) or "") for key in ("HOST", "PORT", "NAME"))


def _identity(connection: BaseDatabaseWrapper) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT system_identifier, current_database() FROM pg_control_system()")
        found: tuple[Any, ...] = cursor.fetchone()
        return found


def _postgresql(given: Mapping[str, Any]) -> str:
    query = {name: str(value) for name, value in given.get("OPTIONS", {}).items() if name not in _DJANGOS}
    host, port = str(given.get("HOST") or ""), str(given.get("PORT") or "")
    if host.startswith("/"):
        query |= {"host": host, **({"port": port} if port else {})}
        host = port = ""
    user, password = str(given.get("USER") or ""), str(given.get("PASSWORD") or "")
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    driver = "+psycopg" if find_spec("psycopg") else ""
    end = f"?{urlencode(query)}" if query else ""
    return f"postgresql{driver}://{who}{'@' if who else ''}{where}/{quote(str(given.get('NAME') or ''), safe='')}{end}"
