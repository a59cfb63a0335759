"""Which settings are secret, and texts without them."""

from __future__ import annotations

import re

from camora.config.locate import KeyPath
from camora.settings import mask_url

__all__ = ["MASK", "is_secret_key", "scrubbed"]

MASK = "***"
_SECRET = re.compile(r"(?i)passw|passphrase|pwd|secret|token|credential|private|(?:^|[_-])(?:api)?keys?$|apikey")
_NAMES_OF_THINGS = ("schedules", "tasks", "queues", "pools")
"""Sections whose keys are no secrets, whatever they are called: a schedule has a key, a task may be a token's."""


def is_secret_key(path: KeyPath) -> bool:
    """True where the name alone says that the value is not to be shown."""
    if path and path[0] in _NAMES_OF_THINGS:
        return False
    return any(isinstance(part, str) and _SECRET.search(part) for part in path)


def scrubbed(text: str, secrets: set[str]) -> str:
    """The text without passwords of URLs, and without these secrets, however they are quoted."""
    text = mask_url(text)
    for secret in sorted(secrets, key=len, reverse=True):
        for form in {secret, repr(secret)[1:-1], ascii(secret)[1:-1]}:
            if form:
                text = text.replace(form, MASK)
    return text
