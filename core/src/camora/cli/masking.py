"""No command's output shows a password of a URL: every text and every value goes through here before it is printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from camora.settings import mask_url

__all__ = ["masked", "masked_data"]

_URL = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>|]+""")


def masked(text: str) -> str:
    """The text, with the secrets of every URL in it replaced by `***`."""
    return _URL.sub(lambda found: mask_url(found.group()), text) if "://" in text else text


def masked_data(value: Any) -> Any:
    """Plain data, with every text in it masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {key: masked_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked_data(item) for item in value]
    return value
