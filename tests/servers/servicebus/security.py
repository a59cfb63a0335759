"""Who may do what: tokens of `$cbs` ("AMQP 1.0 protocol guide": claims-based security; "Shared access signatures")."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import attrs

__all__ = ["Refused", "Tokens", "audience_path", "sign", "unsigned_jwt"]

_SAS = "SharedAccessSignature "
_AUDIENCE = "https://servicebus.azure.net"


class Refused(Exception):
    """A token that nobody believes."""


def audience_path(audience: str) -> str:
    """The entity that an audience is about, empty for the whole namespace: `sb://host/queue` is about "queue"."""
    _, _, rest = audience.rpartition("://")
    return unquote(rest.partition("/")[2]).strip("/").lower()


def _signature(key: str, resource: str, expiry: str) -> str:
    digest = hmac.new(key.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def sign(name: str, key: str, uri: str, expires: float) -> str:
    """A shared access signature for a resource, valid until a time in seconds since 1970."""
    resource, expiry = quote(uri, safe=""), str(int(expires))
    fields = {"sig": _signature(key, resource, expiry), "se": expiry, "skn": name}
    return f"{_SAS}sr={resource}&{urlencode(fields)}"


def unsigned_jwt(expires: float, audience: str = _AUDIENCE) -> str:
    """A token as a credential gives it, that the emulator takes: of the right shape, signed by nobody."""
    header, claims = {"alg": "none", "typ": "JWT"}, {"aud": audience, "exp": int(expires), "sub": "test"}
    return f"{_base64(header)}.{_base64(claims)}."


def _base64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@attrs.define
class Tokens:
    """The keys of the namespace. `strict` asks for a valid token; else everybody may do all."""

    keys: dict[str, str]
    clock: Callable[[], float]
    strict: bool = False

    def check(self, kind: str, token: Any, audience: str) -> float:
        """Until when this token lets its holder in, in seconds since 1970. Raises `Refused`."""
        if not isinstance(token, str):
            raise Refused("the token is no string")
        if kind not in ("jwt", "servicebus.windows.net:sastoken"):
            raise Refused(f"no type of token: {kind!r}")
        # By what it is: the Python client calls a signature of a connection string "jwt", and the service takes it.
        expires = self._sas(token, audience) if token.startswith(_SAS) else self._jwt(token)
        if self.strict and expires <= self.clock():
            raise Refused("ExpiredToken: the token has run out")
        return expires

    def allows(self, header: str) -> bool:
        """Whether a request over HTTP with this header `Authorization` may do what it asks."""
        try:
            self.check("jwt", header.removeprefix("Bearer "), "")
        except Refused:
            return False
        return True

    def _sas(self, token: str, audience: str) -> float:
        fields = dict(parse_qsl(token.removeprefix(_SAS).replace("+", "%2B"), keep_blank_values=True))
        # Over the resource as it stands in the token, which is quoted: reading it would change its case.
        raw = next((part[3:] for part in token.removeprefix(_SAS).split("&") if part.startswith("sr=")), "")
        if not self.strict:
            return _number(fields.get("se"))
        if not {"sig", "se", "skn"} <= fields.keys():
            raise Refused("MalformedToken: the signature is not whole")
        key = self.keys.get(fields["skn"])
        if key is None or not hmac.compare_digest(_signature(key, raw, fields["se"]), fields["sig"]):
            raise Refused("InvalidSignature: the token has an invalid signature")
        scope, wanted = audience_path(unquote(raw)), audience_path(audience)
        if audience and scope and wanted != scope and not wanted.startswith(scope + "/"):
            raise Refused(f"the token is for {scope!r}, not for {wanted!r}")
        return _number(fields["se"])

    def _jwt(self, token: str) -> float:
        try:
            claims = token.split(".")[1]
            fields = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
            expires = float(fields["exp"])
        except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
            if self.strict:
                raise Refused("MalformedToken: the token is no JWT") from None
            return math.inf
        if self.strict and not str(fields.get("aud", "")).startswith(_AUDIENCE):
            raise Refused(f"InvalidAudience: the token is not for {_AUDIENCE}")
        return expires


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.inf
