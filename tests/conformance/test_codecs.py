"""The built-in codecs sit their exam."""

from __future__ import annotations

from typing import Any

import pytest
from camora.builtin.json_codec import JsonCodec
from camora.builtin.msgpack_codec import MsgpackCodec
from camora.builtin.signing import SignedCodec
from camora.interfaces.codec import Codec
from camora.testing.conformance import CodecConformance


class TestJsonCodec(CodecConformance):
    @pytest.fixture
    def codec(self) -> Codec:
        return JsonCodec()


class TestMsgpackCodec(CodecConformance):
    @pytest.fixture
    def codec(self) -> Codec:
        return MsgpackCodec()


class TestSignedCodec(CodecConformance):
    @pytest.fixture(params=[JsonCodec, MsgpackCodec])
    def codec(self, request: pytest.FixtureRequest) -> Codec:
        return SignedCodec(request.param(), ["a key that is long enough for the exam"])

    def written(self, codec: Codec, data: Any) -> bytes:
        assert isinstance(codec, SignedCodec)
        return codec.sign(codec.inner.encode_value(data))

    def read(self, codec: Codec, body: bytes) -> Any:
        assert isinstance(codec, SignedCodec)
        return codec.inner.decode_value(body.partition(b"\n")[2])
