"""The same with a classic queue, which it declares where nothing is said."""

from __future__ import annotations

from benchmarks.entrants.celery_amqp import CeleryAmqp


class CeleryAmqpClassic(CeleryAmqp):
    queue_type = "classic"


ENTRANT = CeleryAmqpClassic
