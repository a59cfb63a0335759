"""The same without batches: what a command for each job costs, however little is around it."""

from __future__ import annotations

from benchmarks.entrants.raw_redis import RawRedis


class RawRedisOne(RawRedis):
    slow = 1
    batch = 1


ENTRANT = RawRedisOne
