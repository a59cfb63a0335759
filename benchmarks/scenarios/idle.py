"""Idle: what a worker costs that has nothing to do: itself, and its server."""

from __future__ import annotations

import asyncio
import contextlib

from benchmarks.bench import Bench
from benchmarks.proxy import counting
from benchmarks.scenario import Metric, Scenario

WINDOW = 20.0


async def measure(bench: Bench) -> dict[str, float]:
    return await rest(bench, bench.params["seconds"])


async def rest(bench: Bench, seconds: float) -> dict[str, float]:
    """Leave a worker alone for so long."""
    async with contextlib.AsyncExitStack() as stack:
        url = bench.entrant.place.url
        sent = await stack.enter_async_context(counting(bench.entrant.server, url)) if url else None
        worker = await stack.enter_async_context(bench.worker(expect=1, url=sent.url if sent else ""))
        await bench.entrant.dispatch("noop")  # it works: now it can be idle
        await bench.line()
        await asyncio.sleep(2.0)
        before, server = worker.cpu_ns, bench.meter.read() if bench.meter else None
        requests = sent.requests if sent else 0
        await asyncio.sleep(seconds)
        figures = {"cpu_ms": (worker.cpu_ns - before) / 1e6 * WINDOW / seconds, "rss": worker.rss_mib}
        if bench.meter and server and sent:
            figures["commands_s"] = (sent.requests - requests) / seconds
            cpu_us = bench.meter.read().cpu_since(server)
            if cpu_us is not None:
                figures["server_ms"] = cpu_us / 1e3 * WINDOW / seconds
        return figures


SCENARIO = Scenario(
    "idle",
    "Idle worker",
    (
        Metric("cpu_ms", "CPU ms in 20 s", more_is_better=False, digits=1),
        Metric("rss", "RSS MiB", more_is_better=False, digits=1),
        Metric("commands_s", "commands sent /s", more_is_better=False, digits=2),
        Metric("server_ms", "server CPU ms in 20 s", more_is_better=False, digits=1),
    ),
    measure,
    params={"seconds": 20.0},
    quick={"seconds": 4.0},
    chooses=False,
)
