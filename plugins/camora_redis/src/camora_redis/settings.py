"""What can be set, as keywords of a provider or in the query of a URL."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
from camora.errors import ConfigurationError, SettingsError
from camora.settings import Duration, mask_url, structure_settings
from camora.units import duration

__all__ = ["SCHEMES", "Address", "RedisSettings", "split_url"]

SCHEMES = (
    "redis", "rediss", "valkey", "valkeys", "redis+unix", "unix",
    "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
)  # fmt: skip
_PORTS = {"sentinel": 26379}


def _positive(_: Any, attribute: Any, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} = {value!r}: must be more than 0")


def _not_negative(_: Any, attribute: Any, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} = {value!r}: must be 0 or more")


def _resp(_: Any, attribute: Any, value: int | None) -> None:
    if value not in (None, 2, 3):
        raise ValueError(f"{attribute.name} = {value!r}: must be 2 or 3")


@attrs.frozen(kw_only=True)
class RedisSettings:
    """Settings of everything that is kept in Redis or Valkey; durations are seconds, or texts such as "10s".

    `prefix` begins the name of every key and channel, `group` is the name of the consumer group. `timeout` is how long
    the server may take for an answer, or for a connection. `dedup_window` is how many ids of finished jobs each queue
    remembers, so that publishing them again stores nothing. `wait_replicas` is how many replicas must have a dispatch
    before it counts as stored, within `wait_timeout`. `protocol` is the version of RESP: 2 or 3; None: what the client
    library prefers.
    """

    prefix: str = attrs.field(default="camora", validator=attrs.validators.min_len(1))
    group: str = attrs.field(default="camora", validator=attrs.validators.min_len(1))
    timeout: Duration = attrs.field(default=5.0, converter=duration, validator=_positive)
    dedup_window: int = attrs.field(default=100_000, validator=_not_negative)
    wait_replicas: int = attrs.field(default=0, validator=_not_negative)
    wait_timeout: Duration = attrs.field(default=1.0, converter=duration, validator=_positive)
    protocol: int | None = attrs.field(default=None, validator=_resp)


@attrs.frozen(kw_only=True)
class Address:
    """A URL taken apart. `form` is "single", "unix", "sentinel" or "cluster"."""

    form: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Keyword arguments for connections of the redis client."""
    label: str = ""
    """The URL without secrets and options."""


_KINDS: dict[str, Any] = {
    "socket_keepalive": bool, "client_name": str, "ssl_ca_certs": str, "ssl_certfile": str, "ssl_keyfile": str,
    "ssl_cert_reqs": str, "ssl_check_hostname": bool, "ssl_ciphers": str, "ssl_password": str,
}  # fmt: skip
_TRUE = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def split_url(url: str, settings: RedisSettings | None = None) -> tuple[Address, RedisSettings]:
    """Where the servers are, and the settings with those of the URL's query on top.

    Raises `ConfigurationError` for a URL that cannot be, and `SettingsError` for options that do not exist, stand
    there twice, or have no usable value.
    """
    bare, _, query = url.partition("?")
    where = mask_url(bare)
    scheme, _, rest = bare.partition("://")
    base, _, form = scheme.partition("+")
    given, options = _query(query, where)
    if scheme in ("unix", "redis+unix"):
        address = _unix(rest, options, where)
    elif scheme in SCHEMES:
        address = _network(form or "single", rest, options, where)
        if base in ("rediss", "valkeys"):
            address.options["ssl"] = True  # type: ignore[index]
        elif any(name.startswith("ssl_") for name in options):
            raise SettingsError(f"{where}: ssl_ options need {base}s:// (TLS)")
    else:
        raise ConfigurationError(f"{where}: the scheme must be one of {', '.join(SCHEMES)}")
    start: Mapping[str, Any] = attrs.asdict(settings) if settings is not None else {}
    made = structure_settings(RedisSettings, {**start, **given}, where=where)
    if made.protocol is not None:
        address.options["protocol"] = made.protocol  # type: ignore[index]
    return address, made


def _query(query: str, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    own = [field.name for field in attrs.fields(RedisSettings)]
    given: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in given or name in options:
            raise SettingsError(f"{where}: setting {name!r} is given twice")
        if name in own:
            given[name] = value
        elif name in _KINDS:
            options[name] = _made(name, value, where)
        else:
            near = difflib.get_close_matches(name, [*own, *_KINDS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join([*own, *_KINDS])}"
            raise SettingsError(f"{where}: unknown setting {name!r}: {hint}")
    return given, options


def _made(name: str, value: str, where: str) -> Any:
    if _KINDS[name] is bool:
        if value.lower() not in _TRUE:
            raise SettingsError(f"{where}: {name} = {value!r}: expected true or false")
        return _TRUE[value.lower()]
    return value


def _credentials(text: str) -> dict[str, Any]:
    user, _, password = text.partition(":")
    found = {}
    if user:
        found["username"] = unquote(user)
    if password:
        found["password"] = unquote(password)
    return found


def _network(form: str, rest: str, options: dict[str, Any], where: str) -> Address:
    authority, _, path = rest.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    options = {"socket_keepalive": True, **options, **(_credentials(credentials) if at else {})}
    names = [_host(one, _PORTS.get(form, 6379), where) for one in hosts.split(",")]
    parts = [unquote(part) for part in path.split("/") if part]
    service = ""
    if form == "sentinel":
        if not parts:
            raise ConfigurationError(f"{where}: name the service: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
        service = parts.pop(0)
    if len(parts) > 1 or (parts and not parts[0].isdecimal()):
        raise ConfigurationError(f"{where}: {'/'.join(parts)!r} is no number of a database, such as 0")
    if form == "single" and len(names) > 1:
        raise ConfigurationError(f"{where}: several hosts need redis+sentinel:// or redis+cluster://")
    database = int(parts[0]) if parts else 0
    if form == "cluster" and database:
        raise ConfigurationError(f"{where}: a cluster has no database but 0")
    if form != "cluster":
        options["db"] = database
    if form == "single":
        options["host"], options["port"] = names[0]
    shown = where.rpartition("@")[2] if at else where.partition("://")[2]
    return Address(
        form=form, hosts=tuple(names), service=service, options=options, label=f"{where.partition('://')[0]}://{shown}"
    )


def _host(text: str, port: int, where: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or port
    except ValueError as error:
        raise ConfigurationError(f"{where}: {text!r} is no host and port: {error}") from None


def _unix(rest: str, options: dict[str, Any], where: str) -> Address:
    credentials, at, path = rest.rpartition("@")
    options = {**options, **(_credentials(credentials) if at else {}), "path": unquote(path)}
    if not path.startswith("/"):
        raise ConfigurationError(f"{where}: name the socket by its whole path: redis+unix:///run/redis.sock")
    options.pop("socket_keepalive", None)
    return Address(form="unix", path=unquote(path), options=options, label=f"redis+unix://{path}")
