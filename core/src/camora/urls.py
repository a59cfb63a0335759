"""Taking URLs of servers apart: what plugins with URLs of their own have in common. No secret is ever shown."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from camora.errors import ConfigurationError
from camora.settings import mask_url

__all__ = ["Query", "ServerUrl", "host_and_port", "one_of", "shown_url", "text", "truth"]


def shown_url(url: str) -> str:
    """The URL without user, password and options, as errors name it."""
    scheme, _, rest = mask_url(url).partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}".partition("?")[0]


@attrs.frozen
class ServerUrl:
    """`scheme://user:password@hosts/path?query`, taken apart; user and password as they are meant.

    `rest` is all between scheme and query, for those whose URLs look otherwise. `where` names the URL in errors.
    `named` says whether the URL has a user or a password.
    """

    scheme: str
    rest: str = attrs.field(repr=False)
    query: str = attrs.field(repr=False)
    where: str

    @classmethod
    def of(cls, url: str, schemes: Collection[str], *, paths: Collection[str] = ()) -> ServerUrl:
        """Of one of these schemes; those in `paths` name a file of this machine, which may have an `@` in it.

        Raises `ConfigurationError` for another scheme, and for a password that was not written as URLs want it.
        """
        bare, _, query = url.partition("?")
        scheme, _, rest = bare.partition("://")
        made = cls(scheme.lower(), rest, query, shown_url(url))
        if made.scheme not in schemes:
            near = difflib.get_close_matches(made.scheme, schemes, n=1)
            hint = f"did you mean {near[0]}://?" if near else f"the scheme must be one of {', '.join(schemes)}"
            raise ConfigurationError(f"{made.where}: {hint}")
        if "@" in query or (made.scheme not in paths and "@" in made.path):
            # A password with one of these in it comes apart at the wrong place, and would be shown.
            raise ConfigurationError(
                f"{made.where}: in a user name, a password or an option write / as %2F, ? as %3F, @ as %40 and % as %25"
            )
        return made

    @property
    def _access(self) -> tuple[str, str]:
        credentials, _, hosts = self.rest.partition("/")[0].rpartition("@")
        return credentials, hosts

    @property
    def hosts(self) -> Sequence[str]:
        """What stands before the path, one text for each server: `host_and_port` reads them."""
        return self._access[1].split(",")

    @property
    def path(self) -> str:
        """What stands behind the first `/`, as it is written."""
        return self.rest.partition("/")[2]

    @property
    def named(self) -> bool:
        """Whether the URL says who we are."""
        return bool(self._access[0])

    @property
    def user(self) -> str:
        """Empty where there is none."""
        return unquote(self._access[0].partition(":")[0])

    @property
    def password(self) -> str:
        """Empty where there is none."""
        return unquote(self._access[0].partition(":")[2])


@attrs.frozen
class Query:
    """The query of a URL: texts of settings, read values of other options, and what is wrong with them."""

    settings: dict[str, Any] = attrs.field(factory=dict, repr=False)
    options: dict[str, Any] = attrs.field(factory=dict, repr=False)
    problems: list[str] = attrs.field(factory=list)

    @classmethod
    def of(
        cls,
        url: ServerUrl,
        settings: Sequence[str],
        options: Mapping[str, Callable[[str], Any]],
        *,
        secret: Collection[str] = (),
    ) -> Query:
        """With these names of settings, and these options with what reads each.

        A reader raises `ValueError`; values of those in `secret` are not shown. All mistakes end in `problems`.
        """
        found = cls()
        for name, value in parse_qsl(url.query, keep_blank_values=True):
            if name in found.settings or name in found.options:
                found.problems.append(f"{url.where}: setting {name!r} is given twice")
            elif name in settings:
                found.settings[name] = value
            elif name in options:
                try:
                    found.options[name] = options[name](value)
                except ValueError as error:
                    shown = "***" if name in secret else repr(value)
                    found.problems.append(f"{url.where}: {name} = {shown}: {error}")
            else:
                known = [*settings, *options]
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                found.problems.append(f"{url.where}: unknown setting {name!r}: {hint}")
        return found


def host_and_port(text: str, port: int, where: str) -> tuple[str, int]:
    """A server: `HOST`, `HOST:PORT` or `[IPV6]:PORT`, with this port where it names none. Empty: `localhost`.

    Raises `ConfigurationError`.
    """
    wrong = "" if text.startswith("[") or text.count(":") < 2 else f"write an IPv6 address in brackets, [::1]:{port}"
    found = "", 0
    try:
        parts = urlsplit(f"//{text}")
        found = unquote(parts.hostname or "localhost"), port if parts.port is None else parts.port
    except ValueError as error:
        wrong = wrong or str(error)
    if wrong or not found[1]:
        raise ConfigurationError(f"{where}: {text!r} is no host and port: {wrong or 'there is no port 0'}")
    return found


# What reads options. All raise `ValueError`.


def text(value: str) -> str:
    """Any text but an empty one."""
    if not value:
        raise ValueError("it is empty")
    return value


def truth(value: str) -> bool:
    """True or false, in the usual words."""
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.lower() not in known:
        raise ValueError("expected true or false")
    return known[value.lower()]


def one_of(*words: str) -> Callable[[str], str]:
    """One of these words, in any case."""

    def read(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value.lower()

    return read
