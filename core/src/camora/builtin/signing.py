"""Signed messages: what was not written by a holder of the key, or was changed since, is never run.

A signed body is one line of text and, below it, the bytes of the codec inside:

```
camora-signed 1 message 5be0a3c4d1f09e72 1700000000000 5d41…(64 hexadecimal digits)
{"id":"…","task":"…"}
```

The words are: the format and its version, what it is (`message` or `value`), which key, when it was signed
(milliseconds since the epoch), and the HMAC-SHA256 of everything else, in hexadecimal digits.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any

from camora.clock import SYSTEM_CLOCK, Clock
from camora.errors import ConfigurationError, DecodeError
from camora.interfaces.codec import Codec
from camora.message import Message

__all__ = ["SignedCodec"]

SHORTEST_KEY = 32
"""Bytes; less than HMAC-SHA256 deserves."""
_FORMAT = b"camora-signed"
_VERSION = b"1"
_LONGEST_HEAD = 160
"""Bytes of the first line: room for later versions, and an end to the search for it."""
_MESSAGE, _VALUE = b"message", b"value"
_MAKE_ONE = 'make one with  python -c "import secrets; print(secrets.token_hex(32))"'


class SignedCodec(Codec):
    """A codec around another one: it signs what that one writes, and reads only what is signed.

    `keys`: the first one signs, all of them verify, so that a key is rotated by putting the new one behind the old one
    everywhere, then in front of it, then alone. A key is bytes, or text that is used as UTF-8, of at least 32 bytes.
    `max_age` is how many seconds after it was signed, or after it was due if that is later, a message is still run;
    None is for ever. `accept_unsigned` lets bare messages through while a system is changed over to signing: until it
    is off again, nothing is protected.

    Raises `ConfigurationError` for a key that is too short, or for none.
    """

    def __init__(
        self,
        inner: Codec,
        keys: str | bytes | Sequence[str | bytes],
        *,
        accept_unsigned: bool = False,
        max_age: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        checked = [_checked(key, place) for place, key in enumerate(_listed(keys), 1)]
        if not checked:
            raise ConfigurationError(f"signing needs a key: {_MAKE_ONE}")
        if max_age is not None and max_age <= 0:
            raise ConfigurationError(f"signing: max_age = {max_age!r}: must be more than 0 seconds")
        self.inner = inner
        self.name = f"signed-{inner.name}"
        self.authenticated = not accept_unsigned
        self._accept_unsigned = accept_unsigned
        self._max_age = None if max_age is None else round(max_age * 1000)
        self._clock = clock
        self._keys = {_key_id(key): key for key in checked}
        self._signer = _key_id(checked[0])

    def encode(self, message: Message) -> bytes:
        """The message, signed."""
        # Its own time where it has one: so the same message is always the same bytes.
        return self._sign(_MESSAGE, self.inner.encode(message), message.created or self._clock.now_ms())

    def decode(self, body: bytes) -> Message:
        """The message, if it is signed with a known key and unchanged, however old it is."""
        return self.inner.decode(self._open(_MESSAGE, body)[0])

    def admit(self, body: bytes) -> Message:
        """As `decode`, and not older than `max_age`."""
        inner, signed_at = self._open(_MESSAGE, body)
        message = self.inner.decode(inner)
        if self._max_age is not None and signed_at is not None:
            age = self._clock.now_ms() - max(signed_at, message.due)
            if age > self._max_age:
                raise DecodeError(
                    f"message {message.id} was signed {age / 1000:.0f} s ago; at most {self._max_age / 1000:g} s "
                    "(max_age) are accepted",
                    reason="stale",
                )
        return message

    def evolve(self, body: bytes, changes: dict[str, Any]) -> bytes:
        """Verified, changed, and signed again, now and with the first key. An unsigned one stays unsigned."""
        inner, signed_at = self._open(_MESSAGE, body)
        changed = self.inner.evolve(inner, changes)
        return changed if signed_at is None else self._sign(_MESSAGE, changed, self._clock.now_ms())

    def encode_value(self, value: Any) -> bytes:
        """A result, signed. It does not say whose: see `docs/security.md`."""
        return self._sign(_VALUE, self.inner.encode_value(value), 0)

    def decode_value(self, data: bytes) -> Any:
        """A result, if it is signed with a known key and unchanged."""
        return self.inner.decode_value(self._open(_VALUE, data)[0])

    def sign(self, body: bytes) -> bytes:
        """The inner codec's bytes of a message, made elsewhere, as a signed message of this moment."""
        return self._sign(_MESSAGE, body, self._clock.now_ms())

    def _sign(self, kind: bytes, inner: bytes, moment: int) -> bytes:
        head = b"%s %s %s %s %d" % (_FORMAT, _VERSION, kind, self._signer, moment)
        return b"%s %s\n%s" % (head, _mac(self._keys[self._signer], head, inner), inner)

    def _open(self, kind: bytes, body: bytes) -> tuple[bytes, int | None]:
        """What is inside, and when it was signed: None if it is unsigned, and that is accepted."""
        if not body.startswith(_FORMAT):
            if self._accept_unsigned:
                return body, None
            raise DecodeError(
                f"these {len(body)} bytes are not signed, and only signed ones are read", reason="unsigned"
            )
        end = body.find(b"\n", 0, _LONGEST_HEAD)
        words = body[: max(end, 0)].split(b" ")
        if len(words) > 1 and words[0] == _FORMAT and words[1] != _VERSION:
            raise DecodeError(f"signed in format {_shown(words[1])}; this version reads format 1")
        if len(words) != 6:
            raise _forged("its first line is damaged")
        head, mac = body[:end].rsplit(b" ", 1)
        key = self._keys.get(words[3])
        if key is None:
            raise DecodeError(
                f"signed with the key {_shown(words[3])}; known are {', '.join(map(_shown, self._keys))}",
                reason="unknown_key",
            )
        inner = body[end + 1 :]
        if not hmac.compare_digest(mac, _mac(key, head, inner)):
            raise _forged("its signature does not belong to its contents")
        # From here on the line is what a holder of the key has written.
        if words[2] != kind:
            raise _forged(f"it is a signed {_shown(words[2])}, not a {_shown(kind)}")
        return inner, int(words[4])

    def __repr__(self) -> str:
        return f"<SignedCodec over {self.inner.name}, keys {', '.join(map(_shown, self._keys))}>"


def _listed(keys: str | bytes | Sequence[str | bytes]) -> Sequence[str | bytes]:
    """One key alone would be taken for a list of characters."""
    return [keys] if isinstance(keys, str | bytes) else keys


def _checked(key: str | bytes, place: int) -> bytes:
    if not isinstance(key, str | bytes):
        raise ConfigurationError(f"signing: key {place} is {type(key).__name__}; a key is text or bytes")
    data = key.encode() if isinstance(key, str) else bytes(key)
    if len(data) < SHORTEST_KEY:
        raise ConfigurationError(
            f"signing: key {place} has {len(data)} bytes; it needs {SHORTEST_KEY} or more: {_MAKE_ONE}"
        )
    return data


def _key_id(key: bytes) -> bytes:
    """Names a key without telling anything of it."""
    return hmac.digest(key, b"camora key id", "sha256")[:8].hex().encode()


def _mac(key: bytes, head: bytes, inner: bytes) -> bytes:
    return hmac.digest(key, b"%s\n%s" % (head, inner), "sha256").hex().encode()


def _forged(why: str) -> DecodeError:
    return DecodeError(f"not what a holder of the key has signed: {why}", reason="forged")


def _shown(word: bytes) -> str:
    """A stranger's bytes, safe to print."""
    return ascii(word[:32].decode("ascii", "replace"))[1:-1]
