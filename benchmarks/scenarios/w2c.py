"""W2c: how many commands a worker sends to its server for each job it drains. W2rc: with a result of each job kept.

They are counted between the worker and its server, from the first job's run to the last job's. Whatever a script or a
function does is one command; what a client sends between MULTI and EXEC counts one by one, and so do BEGIN and COMMIT.
Nothing is timed here.
"""

from __future__ import annotations

from benchmarks import needs
from benchmarks.bench import Bench
from benchmarks.proxy import counting
from benchmarks.scenario import Metric, Scenario


async def measure(bench: Bench) -> dict[str, float]:
    count, job = bench.params["count"], bench.params["job"]
    arguments: list[tuple[int, ...]] = [() if job == "noop" else (1,)] * count
    await bench.entrant.dispatch_many(job, arguments)
    async with (
        counting(bench.entrant.server, bench.entrant.place.url) as sent,
        bench.worker(expect=count, url=sent.url),
    ):
        seen = 0
        before: int | None = None
        while seen < count:
            words = await bench.line()
            seen = int(words[1]) if words[0] == "count" else seen + 1
            before = sent.requests if before is None else before
        return {"sent": (sent.requests - (before or 0)) / count}


METRICS = (Metric("sent", "commands sent/job", more_is_better=False, digits=3),)

SCENARIO = Scenario(
    "w2c",
    "W2c commands that one worker sends for a no-op job",
    METRICS,
    measure,
    params={"count": 10_000, "job": "noop"},
    quick={"count": 2_000},
    counts=("count",),
    unfit=needs.requests,
    chooses=False,
)

WITH_RESULTS = Scenario(
    "w2rc",
    "W2rc commands that one worker sends for a job whose result is kept",
    METRICS,
    measure,
    params={"count": 10_000, "job": "answer", "results": True},
    quick={"count": 2_000},
    counts=("count",),
    unfit=needs.requests_and_results,
    chooses=False,
)
