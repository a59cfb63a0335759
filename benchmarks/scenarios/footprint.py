"""Import: what `import` of the package alone costs, and whether it loads the library of a backend."""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.bench import Bench
from benchmarks.scenario import Metric, Scenario

BACKENDS = ("sqlalchemy", "alembic", "redis", "psycopg", "asyncpg", "aio_pika", "aiormq", "pymysql", "azure", "sqlite3")

_PROGRAM = """
import json, sys, time
before = set(sys.modules)
started, cpu = time.perf_counter(), time.process_time()
package, _, name = sys.argv[1].partition(":")
getattr(__import__(package), name or "__doc__")
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
rss = next((int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmRSS:")), 0.0)
tops = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"ms": seconds * 1000, "cpu_ms": cpu * 1000, "rss": rss, "modules": len(set(sys.modules) - before),
                  "backends": sorted(tops & set(sys.argv[2].split(",")))}))
"""


async def measure(bench: Bench) -> dict[str, float]:
    package = bench.entrant.package
    if not package:
        raise ValueError("it names no package")
    samples = []
    for _ in range(bench.params["times"] + 1):  # the first one writes bytecode, see the runner
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, package, ",".join(BACKENDS), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        samples.append(json.loads(output))
    best = min(samples[1:], key=lambda sample: sample["ms"])
    return {key: best[key] for key in ("ms", "cpu_ms", "rss", "modules")} | {"backends": len(best["backends"])}


SCENARIO = Scenario(
    "import",
    "Import of the package alone",
    (
        Metric("ms", "ms", more_is_better=False),
        Metric("cpu_ms", "CPU ms", more_is_better=False),
        Metric("rss", "RSS MiB", more_is_better=False, digits=1),
        Metric("modules", "modules", more_is_better=False),
        Metric("backends", "backend libraries", more_is_better=False),
    ),
    measure,
    params={"times": 5},
    quick={"times": 1},
    chooses=False,
)
