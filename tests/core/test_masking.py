"""Texts and data without the secrets of the URLs in them."""

from __future__ import annotations

import pytest
from camora.masking import masked, masked_data, masked_error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no URL here: a@b", "no URL here: a@b"),
        ("redis://host:6379/0 is away", "redis://host:6379/0 is away"),
        ("redis://:pw@host is away", "redis://:***@host is away"),
        ("redis://me:pw@host/0 and amqp://you:wp@host", "redis://me:***@host/0 and amqp://you:***@host"),
        ("'redis://me:p'w\"<>|@host'", "'redis://me:***@host'"),
        ("redis://me:two words@host", "redis://me:***@host"),
        ("redis://me:p@ss@word@host", "redis://me:***@host"),
        ("postgresql+asyncpg://me:pw@host/db?ssl=1", "postgresql+asyncpg://me:***@host/db?ssl=1"),
        ("sb://ns?SharedAccessKey=abc&x=1", "sb://ns?SharedAccessKey=***&x=1"),
        ("redis://host:6379: ask ada@example.org", "redis://host:6379: ask ada@example.org"),
        ("redis://host:6379 ask ada@example.org", "redis://host:6379 ask ada@example.org"),
    ],
)
def test_secrets_of_urls_are_replaced(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_data_is_masked_all_the_way_down() -> None:
    data = {"url": "redis://me:pw@host", "more": [("redis://me:pw@host", 1)], "none": None}
    assert masked_data(data) == {"url": "redis://me:***@host", "more": [["redis://me:***@host", 1]], "none": None}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("url: 'redis:/me:pw@host' is none", "url: 'redis:***@host' is none"),
        ("'redis//me:pw@host' is none", "'redis//me:***@host' is none"),
        ("'me:pw@host' is none", "'me:***@host' is none"),
        ("redis:/host?token=abc&x=1", "redis:/host?token=***&x=1"),
        ("redis://me:pw@host", "redis://me:***@host"),
        ("camora.toml:3:1: ask ada@example.org", "camora.toml:3:1: ask ada@example.org"),
    ],
)
def test_a_mistyped_url_is_masked_in_errors(text: str, shown: str) -> None:
    assert masked_error(text) == shown
