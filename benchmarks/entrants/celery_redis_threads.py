"""Celery on Redis with its thread pool."""

from __future__ import annotations

from benchmarks.entrants.celery_redis import CeleryRedis


class CeleryRedisThreads(CeleryRedis):
    forks = False
    lacks = {"import": "as celery_redis"}  # noqa: RUF012
    variants = {  # noqa: RUF012
        "8 threads": {"pool": "threads", "count": 8},
        "100 threads": {"pool": "threads", "count": 100},
    }


ENTRANT = CeleryRedisThreads
