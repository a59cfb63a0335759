"""The same with classic queues, which it declares where nothing is said."""

from __future__ import annotations

from benchmarks.entrants.faststream_amqp import FastStreamAmqp


class FastStreamAmqpClassic(FastStreamAmqp):
    queue_type = "classic"
    lacks = FastStreamAmqp.lacks | {"import": "as faststream_amqp"}


ENTRANT = FastStreamAmqpClassic
