"""Signing: what is signed comes back, and nothing else does."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

import pytest
from camora.builtin.json_codec import JsonCodec
from camora.builtin.msgpack_codec import MsgpackCodec
from camora.builtin.signing import SignedCodec
from camora.errors import ConfigurationError, DecodeError
from camora.interfaces.codec import Codec
from camora.message import Message
from camora.testing.clock import VirtualClock
from hypothesis import given, settings
from hypothesis import strategies as st

OLD = "the old key, which is long enough to be one"
NEW = "the new key, which is long enough to be one"
MESSAGE = Message(
    id="i", task="t", queue="q", kwargs={"amount": 12}, created=1_700_000_000_000, expires=1_800_000_000_000
)


def signed(*keys: str | bytes, inner: Codec | None = None, **more: Any) -> SignedCodec:
    return SignedCodec(inner or JsonCodec(), keys or [NEW], **more)


def reason_of(codec: Codec, body: bytes) -> str:
    with pytest.raises(DecodeError) as refused:
        codec.admit(body)
    return refused.value.reason


def test_the_format_is_what_the_documents_say() -> None:
    body = signed().encode(MESSAGE)
    head, _, inner = body.partition(b"\n")
    words = head.split(b" ")
    assert words[:3] == [b"camora-signed", b"1", b"message"]
    assert words[4] == b"1700000000000"
    assert inner == JsonCodec().encode(MESSAGE)
    # Made by hand, as another language would.
    assert words[3].decode() == hmac.new(NEW.encode(), b"camora key id", hashlib.sha256).hexdigest()[:16]
    made = hmac.new(NEW.encode(), b" ".join(words[:5]) + b"\n" + inner, hashlib.sha256).hexdigest()
    assert words[5].decode() == made


@pytest.mark.parametrize("inner", [JsonCodec(), MsgpackCodec()], ids=["json", "msgpack"])
def test_unsigned_messages_are_refused(inner: Codec) -> None:
    """A bare message of the very codec inside is what a downgrade looks like."""
    assert reason_of(signed(inner=inner), inner.encode(MESSAGE)) == "unsigned"
    assert reason_of(signed(inner=inner), b"") == "unsigned"


def test_stripping_the_signature_is_no_way_in() -> None:
    body = signed().encode(MESSAGE)
    assert reason_of(signed(), body.partition(b"\n")[2]) == "unsigned"
    head, _, inner = body.partition(b"\n")
    for damaged in (
        head.rpartition(b" ")[0] + b"\n" + inner,
        head.rpartition(b" ")[0] + b" \n" + inner,
        head,
        head + b"\n",
    ):
        assert reason_of(signed(), damaged) == "forged"


@pytest.mark.parametrize("inner", [JsonCodec(), MsgpackCodec()], ids=["json", "msgpack"])
def test_no_single_changed_byte_gets_through(inner: Codec) -> None:
    codec = signed(inner=inner)
    body = codec.encode(MESSAGE)
    for place in range(len(body)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(body)
            changed[place] ^= flip
            assert reason_of(codec, bytes(changed)) in ("forged", "unknown_key", "unsigned", "undecodable")


def test_what_is_cut_off_or_added_does_not_get_through() -> None:
    codec = signed()
    body = codec.encode(MESSAGE)
    for length in range(len(b"camora-signed"), len(body)):
        assert reason_of(codec, body[:length]) in ("forged", "unknown_key")
    assert reason_of(codec, body + b" ") == "forged"


@settings(max_examples=200, deadline=None, database=None)
@given(tail=st.binary(max_size=120))
def test_anything_that_only_looks_signed_is_refused_in_words(tail: bytes) -> None:
    with pytest.raises(DecodeError):
        signed().decode(b"camora-signed 1 message " + tail)
    with pytest.raises(DecodeError):
        signed().decode_value(b"camora-signed " + tail)


def test_a_text_of_a_stranger_is_safe_to_print() -> None:
    with pytest.raises(DecodeError) as refused:
        signed().decode(b"camora-signed 1 message \x1b[31m\r\x00 0 " + b"0" * 64 + b"\n{}")
    assert str(refused.value).isprintable()


def test_a_key_nobody_here_has() -> None:
    assert reason_of(signed(OLD), signed(NEW).encode(MESSAGE)) == "unknown_key"


def test_rotation_first_signs_and_all_verify() -> None:
    before, between, after, done = signed(OLD), signed(OLD, NEW), signed(NEW, OLD), signed(NEW)
    for writer, reader in [
        (before, between), (between, before), (between, after), (after, between), (before, after), (after, done),
    ]:  # fmt: skip
        assert reader.decode(writer.encode(MESSAGE)) == MESSAGE
    assert reason_of(done, between.encode(MESSAGE)) == "unknown_key"
    # A retry is signed with the first key of whoever sends it back.
    assert done.decode(after.evolve(before.encode(MESSAGE), {"attempt": 2})).attempt == 2


def test_evolving_verifies_first() -> None:
    body = bytearray(signed().encode(MESSAGE))
    body[-2] ^= 1
    for bad in (bytes(body), JsonCodec().encode(MESSAGE), signed(OLD).encode(MESSAGE)):
        with pytest.raises(DecodeError):
            signed().evolve(bad, {"attempt": 2})


def test_a_signed_result_is_no_message_nor_a_message_a_result() -> None:
    """Else a task that returns what it was given would sign whatever one likes."""
    codec = signed()
    data = codec.encode_value({"v": 1, "id": "i", "task": "dangerous"})
    assert codec.decode_value(data) == {"v": 1, "id": "i", "task": "dangerous"}
    assert reason_of(codec, data) == "forged"
    assert reason_of(codec, data.replace(b"value", b"message", 1)) == "forged"
    with pytest.raises(DecodeError):
        codec.decode_value(codec.encode(MESSAGE))


def test_results_that_were_changed_are_refused() -> None:
    codec = signed()
    with pytest.raises(DecodeError, match="signature"):
        codec.decode_value(codec.encode_value(12).replace(b"\n12", b"\n99"))
    with pytest.raises(DecodeError, match="not signed"):
        codec.decode_value(b"12")


def test_while_changing_over_bare_messages_are_read_and_forged_ones_are_not() -> None:
    codec = signed(accept_unsigned=True)
    bare = JsonCodec().encode(MESSAGE)
    assert codec.decode(bare) == MESSAGE
    assert codec.decode(codec.evolve(bare, {"attempt": 2})).attempt == 2
    assert codec.decode_value(b"12") == 12
    assert codec.decode(codec.encode(MESSAGE)) == MESSAGE
    assert reason_of(codec, codec.encode(MESSAGE)[:-1]) == "forged"
    assert not codec.authenticated
    assert signed().authenticated


def test_evolving_does_not_sign_what_was_not() -> None:
    bare = signed(accept_unsigned=True).evolve(JsonCodec().encode(MESSAGE), {"attempt": 2})
    assert reason_of(signed(), bare) == "unsigned"


def test_old_messages_are_refused_where_that_is_asked_for() -> None:
    clock = VirtualClock()
    codec = signed(max_age=60, clock=clock)
    now = clock.now_ms()
    body = codec.encode(Message(id="i", task="t", created=now))
    late = codec.encode(Message(id="i", task="t", created=now, due=now + 3_600_000))
    clock.advance(60)
    assert codec.admit(body).id == "i"
    clock.advance(1)
    assert reason_of(codec, body) == "stale"
    assert codec.decode(body).id == "i"  # it may still be looked at
    assert signed(clock=clock).admit(body).id == "i"
    # Sent back by a worker, or by an operator, it is young again.
    assert codec.admit(codec.evolve(body, {"attempt": 2})).attempt == 2
    clock.advance(3600 - 61 + 60)
    assert codec.admit(late).due
    clock.advance(1)
    assert reason_of(codec, late) == "stale"


def test_a_later_format_is_refused_in_words() -> None:
    body = signed().encode(MESSAGE).replace(b"camora-signed 1", b"camora-signed 2")
    with pytest.raises(DecodeError, match="format 2; this version reads format 1"):
        signed().decode(body)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([], "needs a key"),
        (["short"], "key 1 has 5 bytes; it needs 32 or more"),
        ([NEW, b"x" * 31], "key 2 has 31 bytes"),
        ([NEW, 5], "key 2 is int"),
        ("short", "key 1 has 5 bytes"),
    ],
)
def test_keys_that_are_none(keys: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(text)) as refused:
        SignedCodec(JsonCodec(), keys)
    assert "secrets.token_hex" in str(refused.value) or "text or bytes" in str(refused.value)
    assert "short" not in str(refused.value).replace("shorter", "")


def test_one_key_alone_is_one_key() -> None:
    assert SignedCodec(JsonCodec(), NEW).decode(signed().encode(MESSAGE)) == MESSAGE
    assert SignedCodec(JsonCodec(), NEW.encode()).decode(signed().encode(MESSAGE)) == MESSAGE


def test_an_impossible_age_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_age"):
        signed(max_age=0)


def test_no_text_of_it_shows_a_key() -> None:
    codec = signed(NEW, OLD)
    assert NEW not in repr(codec)
    assert OLD not in repr(codec)
    assert NEW.encode() not in codec.encode(MESSAGE)
