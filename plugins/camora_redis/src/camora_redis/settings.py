"""What can be set, as keywords of a provider or in the query of a URL."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import attrs
from camora.errors import ConfigurationError, SettingsError
from camora.settings import Duration, Secret, structure_settings
from camora.urls import Query, ServerUrl, host_and_port, one_of, text, truth
from camora.validators import more_than_no_time, seconds_or_none

__all__ = ["SCHEMES", "Address", "RedisSettings", "split_url"]

_BASES = ("redis", "rediss", "valkey", "valkeys")
_SOCKETS = ("redis+unix", "valkey+unix", "unix")
SCHEMES = (*_BASES, *(f"{base}+{form}" for base in _BASES for form in ("sentinel", "cluster")), *_SOCKETS)
_PORTS = {"sentinel": 26379}
_PORT = 6379


def _is_count(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingsError(f"{attribute.name} = {value!r}: expected a whole number")
    if value < 0:
        raise SettingsError(f"{attribute.name} = {value!r}: must be 0 or more")


def _is_name(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"{attribute.name} = {value!r}: expected a name")
    if set(value) & {"{", "}"}:
        # They decide in which slot of a cluster a key lies.
        raise SettingsError(f"{attribute.name} = {value!r}: must not have braces in it")


def _is_protocol(_: Any, attribute: Any, value: Any) -> None:
    if value not in (None, 2, 3):
        raise SettingsError(f"{attribute.name} = {value!r}: must be 2 or 3")


@attrs.frozen(kw_only=True)
class RedisSettings:
    """Settings of everything that is kept in Redis or Valkey; durations are seconds, or texts such as "10s".

    `prefix` begins the name of every key and channel, `group` is the name of the consumer group. `timeout` is how long
    the server may take for an answer, or for a connection. `dedup_window` is how many ids of finished jobs each queue
    remembers, so that publishing them again stores nothing. `wait_replicas` is how many replicas must have a dispatch
    before it counts as stored, within `wait_timeout`. `protocol` is the version of RESP: 2 or 3; None: what the client
    library prefers. `sentinel_username` and `sentinel_password` are for the Sentinels themselves; those of the URL are
    for the servers that keep the data.

    Raises `SettingsError` that names the field.
    """

    prefix: str = attrs.field(default="camora", validator=_is_name)
    group: str = attrs.field(default="camora", validator=_is_name)
    timeout: Duration = attrs.field(default=5.0, converter=seconds_or_none, validator=more_than_no_time)
    dedup_window: int = attrs.field(default=100_000, validator=_is_count)
    wait_replicas: int = attrs.field(default=0, validator=_is_count)
    wait_timeout: Duration = attrs.field(default=1.0, converter=seconds_or_none, validator=more_than_no_time)
    protocol: int | None = attrs.field(default=None, validator=_is_protocol)
    sentinel_username: str | None = None
    sentinel_password: Secret | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Address:
    """A URL taken apart. `form` is "single", "unix", "sentinel" or "cluster".

    `options` are keyword arguments for connections of the redis client to the servers that keep the data,
    `sentinel_options` to the Sentinels. `label` is the URL without secrets and options.
    """

    form: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    options: dict[str, Any] = attrs.field(factory=dict, repr=False)
    sentinel_options: dict[str, Any] = attrs.field(factory=dict, repr=False)
    label: str = ""


def split_url(url: str, settings: RedisSettings | None = None) -> tuple[Address, RedisSettings]:
    """Where the servers are, and the settings with those of the URL's query on top.

    Raises `ConfigurationError` for a URL that cannot be, and `SettingsError` for options that do not exist, stand
    there twice, or have no usable value. No password is ever shown.
    """
    parts = ServerUrl.of(url, SCHEMES, paths=_SOCKETS)
    base, _, form = parts.scheme.partition("+")
    form = "unix" if base == "unix" else form or "single"
    where = parts.where
    query = Query.of(parts, [field.name for field in attrs.fields(RedisSettings)], _OPTIONS, secret=["ssl_password"])
    options, problems = query.options, query.problems
    start: Mapping[str, Any] = attrs.asdict(settings) if settings is not None else {}
    try:
        made = structure_settings(RedisSettings, {**start, **query.settings}, where=where)
    except SettingsError as error:
        problems += error.problems
    if problems:
        raise SettingsError("\n".join(problems), problems=problems)
    secured = base in ("rediss", "valkeys")
    if not secured and (stray := next((name for name in options if name.startswith("ssl_")), "")):
        how = "which a socket does not have" if form == "unix" else f"write {base}s for {base} in the URL"
        raise SettingsError(f"{where}: {stray} is for TLS: {how}")
    if secured:
        options["ssl"] = True
        if options.get("ssl_cert_reqs") == "none":
            # Nobody's name can be checked where no certificate is.
            options.setdefault("ssl_check_hostname", False)
    if made.protocol is not None:
        options["protocol"] = made.protocol
    address = _unix(parts, options) if form == "unix" else _network(form, parts, options)
    return (_with_sentinels(address, made) if form == "sentinel" else address), made


# The query


def _client_name(value: str) -> str:
    if not value or not all("!" <= character <= "~" for character in value):
        raise ValueError("expected printable ASCII without spaces")
    return value


def _tls_version(value: str) -> ssl.TLSVersion:
    known = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    if value not in known:
        raise ValueError("must be 1.2 or 1.3")
    return known[value]


def _database(value: str) -> int:
    if not value.isascii() or not value.isdecimal():
        raise ValueError("expected the number of a database, such as 0")
    return int(value)


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "db": _database,
    "client_name": _client_name,
    "socket_keepalive": truth,
    "ssl_ca_certs": text,
    "ssl_ca_path": text,
    "ssl_certfile": text,
    "ssl_keyfile": text,
    "ssl_password": text,
    "ssl_cert_reqs": one_of("none", "optional", "required"),
    "ssl_check_hostname": truth,
    "ssl_ciphers": text,
    "ssl_min_version": _tls_version,
}
"""Those of connections, beside `RedisSettings`."""


# Hosts and paths


def _network(form: str, url: ServerUrl, options: dict[str, Any]) -> Address:
    where = url.where
    names = [host_and_port(one, _PORTS.get(form, _PORT), where) for one in url.hosts]
    parts = [unquote(part) for part in url.path.split("/") if part]
    service = ""
    if form == "sentinel":
        if not parts or parts[0].isdecimal():
            raise ConfigurationError(f"{where}: name the service: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
        service = parts.pop(0)
    if form == "single" and len(names) > 1:
        raise ConfigurationError(f"{where}: several hosts need redis+sentinel:// or redis+cluster://")
    database = _number("/".join(parts) or None, options.pop("db", None), where)
    if form == "cluster" and database:
        raise ConfigurationError(f"{where}: a cluster has no database but 0; ?prefix=… keeps apps apart")
    made = {"socket_keepalive": True, **options, **_access(url.user, url.password)}
    if form != "cluster":
        made["db"] = database
    if form == "single":
        made["host"], made["port"] = names[0]
    return Address(form=form, hosts=tuple(names), service=service, options=made, label=where)


def _number(of_path: str | None, of_query: int | None, where: str) -> int:
    if of_path is None:
        return of_query or 0
    if of_query is not None:
        raise SettingsError(f"{where}: setting 'db' is given twice, in the path too")
    try:
        return _database(of_path)
    except ValueError:
        raise ConfigurationError(f"{where}: {of_path!r} is no number of a database, such as 0") from None


def _access(user: str, password: str) -> dict[str, str]:
    return {name: value for name, value in (("username", user), ("password", password)) if value}


def _unix(url: ServerUrl, options: dict[str, Any]) -> Address:
    credentials, _, path = url.rest.rpartition("@")
    if not path.startswith("/"):
        raise ConfigurationError(f"{url.where}: name the socket by its whole path: redis+unix:///run/redis.sock")
    path, number = _cut_number(path)
    database = _number(number, options.pop("db", None), url.where)
    options.pop("socket_keepalive", None)
    path = unquote(path)
    user, _, password = credentials.partition(":")
    made = {**options, **_access(unquote(user), unquote(password)), "path": path, "db": database}
    return Address(
        form="unix", path=path, options=made, label=f"redis+unix://{path}" + (f"/{number}" if number else "")
    )


def _cut_number(path: str) -> tuple[str, str | None]:
    """The path of the socket, and the number of a database that stands behind it."""
    start, _, last = path.rstrip("/").rpartition("/")
    return (start, last) if start and last.isascii() and last.isdecimal() else (path, None)


def _with_sentinels(address: Address, settings: RedisSettings) -> Address:
    """Sentinels take TLS where the servers do, and have credentials of their own."""
    shared = {name: value for name, value in address.options.items() if name.startswith("ssl") or name == "protocol"}
    own = {"username": settings.sentinel_username, "password": settings.sentinel_password}
    found = {"socket_keepalive": True, **shared, **{name: value for name, value in own.items() if value}}
    return attrs.evolve(address, sentinel_options=found)
