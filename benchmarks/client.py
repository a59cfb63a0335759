"""The dispatching process: `python -m benchmarks.client SCENARIO ENTRANT PARAMS` measures once, in a fresh process.

So no entrant's import, garbage or threads weigh on another's figures.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import catalog, scenarios, worker
from benchmarks.bench import Bench
from benchmarks.entrant import Place

MARK = "benchmark-result "


async def _measure(scenario: str, name: str, params: dict[str, Any], folder: Path) -> dict[str, float]:
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(64))
    url, options, keep_results = os.environ.get(worker.URL, ""), params.pop("options", {}), params.pop("results", False)
    entrant = catalog.load(name)(Place(folder, url, options, keep_results))
    bench = Bench(entrant, name, params)
    await entrant.open()
    try:
        return await scenarios.SCENARIOS[scenario].measure(bench)
    finally:
        await entrant.close()
        bench.close()


def main(what: str, name: str, params: str = "{}") -> None:
    answer: dict[str, Any]
    try:
        if what == "describe":
            answer = catalog.describe(name)
        else:
            with (
                tempfile.TemporaryDirectory(prefix="camora-bench-", ignore_cleanup_errors=True) as folder,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                answer = runner.run(_measure(what, name, json.loads(params), Path(folder)))
    except Exception as error:
        if os.environ.get("CAMORA_BENCH_DEBUG"):
            raise
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(MARK + json.dumps(answer), flush=True)
    # Some clients leave threads that never end.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
