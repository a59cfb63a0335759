"""The built-in codecs sit their exam."""

from __future__ import annotations

import pytest
from camora.builtin.json_codec import JsonCodec
from camora.builtin.msgpack_codec import MsgpackCodec
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
