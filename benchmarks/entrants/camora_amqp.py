"""Camora on RabbitMQ, one worker process: as on Redis, with nothing but the address changed. Quorum queues."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.entrants.camora_redis import CamoraRedis


class CamoraAmqp(CamoraRedis):
    requires: ClassVar[tuple[str, ...]] = ("camora_amqp",)
    distribution = "camora-amqp"
    server = "rabbitmq"
    lacks: ClassVar = {"import": "as camora_redis"}


ENTRANT = CamoraAmqp
