"""Records of jobs as they lie in the store: one letter (F for finished), then MessagePack."""

from __future__ import annotations

from typing import Any

import msgspec
from camora.outcome import JobRecord

from camora_redis.keys import Keys

__all__ = ["encode_record", "milliseconds", "packed_record", "read_record"]

encode_record = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(JobRecord).decode


def milliseconds(record: JobRecord) -> int:
    """How long it is kept."""
    return max(1, round(record.ttl * 1000))


def packed_record(keys: Keys, record: JobRecord, blobs: list[bytes]) -> tuple[Any, ...]:
    """Its key, its bytes, its time in milliseconds, and whether it stands for good."""
    blobs.append(encode_record(record))
    return (keys.record(record.queue, record.id), len(blobs), milliseconds(record), record.status.finished)


def read_record(value: bytes | None) -> JobRecord | None:
    """The record in a value of the store."""
    return None if value is None else _decode(value[1:])
