"""The same with a classic queue."""

from __future__ import annotations

from benchmarks.entrants.raw_amqp import RawAmqp


class RawAmqpClassic(RawAmqp):
    queue_type = "classic"


ENTRANT = RawAmqpClassic
