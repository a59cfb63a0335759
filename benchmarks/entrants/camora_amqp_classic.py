"""The same with classic queues."""

from __future__ import annotations

from benchmarks.entrants.camora_amqp import CamoraAmqp


class CamoraAmqpClassic(CamoraAmqp):
    settings = "queue_type=classic"


ENTRANT = CamoraAmqpClassic
