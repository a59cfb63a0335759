"""The outbox: messages that are dispatched inside a transaction of the user's wait there for their way to the broker.

It is a broker whose store joins transactions, and in it a queue of this app's own. A job's message lies in it packed,
under the job's own id, until a relay has published it; see `camora.worker.relay`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from camora.errors import ConfigurationError, DecodeError
from camora.interfaces.broker import Broker
from camora.message import Envelope

__all__ = ["Outbox", "unpacked"]

_FORMAT = 1
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


class Outbox:
    """Of one app: apps of other names may share the database. Making one does no I/O.

    Raises `ConfigurationError` for a broker that cannot join a transaction.
    """

    def __init__(self, broker: Broker, app: str) -> None:
        if not broker.capabilities.transactions:
            raise ConfigurationError(
                f"outbox={broker!r}: an outbox is in the database of your own tables, and this joins no transactions; "
                "give the URL of that database, such as sqlite:///shop.db or postgresql://host/shop (camora-sql)"
            )
        self.broker = broker
        self.queue = f"outbox.{app}"

    def __repr__(self) -> str:
        return f"Outbox({self.broker!r})"

    async def publish_within(self, connection: Any, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """As `Broker.publish_within`; keys are looked at when the messages reach their broker."""
        packed = [
            Envelope(id=envelope.id, task=envelope.task, queue=self.queue, body=_encode((_FORMAT, envelope)))
            for envelope in envelopes
        ]
        return await self.broker.publish_within(connection, packed)


def unpacked(body: bytes) -> Envelope:
    """The message as it is to be published. Raises `DecodeError`."""
    try:
        version, envelope = _decode(body)
        if version != _FORMAT:
            raise DecodeError(f"this outbox message has format {version}; this Camora knows {_FORMAT}: upgrade it")
        return _decode_envelope(envelope)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"this is no message of an outbox: {error}") from error
