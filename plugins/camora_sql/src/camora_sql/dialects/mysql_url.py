"""Addresses of MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
from camora.errors import ConfigurationError
from camora.settings import mask_url

__all__ = ["Address", "address_of"]

_PORT = 3306
_CHARSET = "utf8mb4"
_FILES = {"ssl_ca": "ca", "ssl_cert": "cert", "ssl_key": "key"}
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@attrs.frozen
class Address:
    """Where a database is, and how to get there."""

    database: str
    user: str
    """Empty where the URL names none."""
    label: str
    """Without secrets."""
    identity: str
    """Equal for two URLs of one database."""
    options: Mapping[str, Any]
    """For the driver."""

    def check(self) -> None:
        """Raises `ConfigurationError` for a file that is not there. Looks at the disk."""
        tls = self.options.get("ssl")
        files: dict[str, str] = tls if isinstance(tls, dict) else {}
        for name, option in _FILES.items():
            if option in files and not Path(files[option]).is_file():
                raise ConfigurationError(f"{self.label}: {name}: {files[option]} is no file; name one that is there")


def address_of(url: str) -> Address:
    """What a URL says. Raises `ConfigurationError`."""
    scheme, _, rest = url.partition("://")
    family = scheme.partition("+")[0]
    try:
        parts = urlsplit(f"mysql://{rest}")
        host, port = parts.hostname or "127.0.0.1", parts.port or _PORT
    except ValueError as error:
        raise _wrong(url, str(error)) from None
    database = unquote(parts.path.lstrip("/"))
    if not database or "/" in database:
        raise _wrong(url, "it names no database")
    user = unquote(parts.username or "")
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "user": user or None,
        # As bytes: the driver takes texts for Latin-1.
        "password": unquote(parts.password or "").encode(),
        "database": database,
        "charset": _CHARSET,
        "program_name": "camora",
        **_more(url, parse_qsl(parts.query, keep_blank_values=True)),
    }
    place = options.get("unix_socket") or f"{host}:{port}"
    return Address(
        database=database,
        user=user,
        label=mask_url(f"{family}://{parts.netloc.rpartition('@')[2]}/{database}"),
        identity=f"mysql://{user}@{place}/{database}",
        options=options,
    )


def _more(url: str, query: list[tuple[str, str]]) -> dict[str, Any]:
    """What the query of a URL has for the driver."""
    found: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    for name, value in query:
        if name == "unix_socket":
            found[name] = value
        elif name in _FILES:
            tls[_FILES[name]] = value
        elif name == "ssl" and value.lower() in _FLAGS:
            if _FLAGS[value.lower()]:
                found["ssl"] = True
        elif name == "charset":
            # SQLAlchemy's URLs often name it.
            if value != _CHARSET:
                raise _wrong(url, f"charset={value}: Camora speaks {_CHARSET}, whatever your tables have; leave it out")
        else:
            raise _wrong(
                url,
                f"{name}={value} is no setting; beside Camora's there are unix_socket, ssl=true, {', '.join(_FILES)}",
            )
    if tls:
        found["ssl"] = tls
    return found


def _wrong(url: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{mask_url(url)!r} is no URL of a MySQL or MariaDB: {why}; write mysql://user:password@host:3306/database"
    )
