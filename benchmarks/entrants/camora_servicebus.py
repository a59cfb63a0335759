"""Camora on Azure Service Bus, one worker process: as on Redis, with nothing but the address changed."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.entrants.camora_redis import CamoraRedis


class CamoraServiceBus(CamoraRedis):
    requires: ClassVar[tuple[str, ...]] = ("camora_servicebus", "azure.servicebus")
    distribution = "camora-servicebus"
    server = "servicebus"
    slow = 0.2
    lacks: ClassVar = {"import": "as camora_redis", "w5": "keeps results elsewhere"}


ENTRANT = CamoraServiceBus
