"""The same with a classic queue."""

from __future__ import annotations

from benchmarks.entrants.raw_aiopika import RawAioPika


class RawAioPikaClassic(RawAioPika):
    queue_type = "classic"


ENTRANT = RawAioPikaClassic
