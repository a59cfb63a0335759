"""Which settings are secret, and texts without them."""

from __future__ import annotations

import re
from urllib.parse import unquote

from camora.config.locate import KeyPath
from camora.masking import masked, masked_error

__all__ = ["MASK", "is_secret_key", "passwords_in", "scrubbed", "scrubbed_error"]

MASK = "***"
_SECRET = re.compile(r"(?i)passw|passphrase|pwd|secret|token|credential|private|(?:^|[_-])(?:api)?keys?$|apikey")
_NAMES_OF_THINGS = ("schedules", "tasks", "queues", "pools")
"""Sections whose keys are no secrets, whatever they are called: a schedule has a key, a task may be a token's."""


def is_secret_key(path: KeyPath) -> bool:
    """True where the name alone says that the value is not to be shown."""
    if path and path[0] in _NAMES_OF_THINGS:
        return False
    return any(isinstance(part, str) and _SECRET.search(part) for part in path)


# As in masking: whatever a password holds, it ends at the last `@`. How many slashes there are is often mistaken.
_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/{0,3}[^/@:?#\s]*:(.+)@", re.DOTALL)
_SHORTEST = 3
"""Anything shorter than this is in too many words to be looked for in them."""


def passwords_in(text: str) -> set[str]:
    """The password of a URL, as it stands there and as it is meant."""
    found = _PASSWORD.match(text)
    words = {found[1], unquote(found[1])} if found else set()
    return {word for word in words if len(word) >= _SHORTEST}


def scrubbed(text: str, secrets: set[str]) -> str:
    """The text without passwords of URLs, and without these secrets, however they are quoted."""
    return masked(_without(text, secrets))


def scrubbed_error(text: str, secrets: set[str]) -> str:
    """As `scrubbed`, for a text that may quote what was meant to be a URL."""
    return masked_error(_without(text, secrets))


def _without(text: str, secrets: set[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        for form in {secret, repr(secret)[1:-1], ascii(secret)[1:-1]}:
            if form:
                text = text.replace(form, MASK)
    return text
