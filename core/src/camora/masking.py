"""What people see is shown without the secrets of URLs: texts and data pass through here before they are printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from camora.settings import mask_url

__all__ = ["masked", "masked_data", "masked_error"]

# Up to the next blank all may be part of a URL, quotes too: rather too much is hidden than too little.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
# A password with blanks in it goes on to the last `@` of the line. What looks like a port is none.
_BLANKS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/@:?#\s]*:)(?!\*\*\*@|\d{1,5}(?:[/?,;:)'\"\s]|$))[^\n]*@")
# What was meant to be a URL, and was mistyped: `redis:/me:password@host`, `me:password@host`.
_ALMOST = re.compile(r"([^\s:@/'\"]*:)(?!//)[^\s@]+@")
_WORD = re.compile(r"\S+")


def masked(text: str) -> str:
    """The text, with the secrets of every URL in it replaced by `***`."""
    if "://" not in text:
        return text
    return _BLANKS.sub(r"\1***@", _URL.sub(lambda found: mask_url(found.group()), text))


def masked_error(text: str) -> str:
    """As `masked`, for a text that may quote a mistyped URL."""
    return _WORD.sub(lambda found: mask_url(found.group()), _ALMOST.sub(r"\1***@", masked(text)))


def masked_data(value: Any) -> Any:
    """Plain data, with every text in it masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked(key) if isinstance(key, str) else key: masked_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked_data(item) for item in value]
    return value
