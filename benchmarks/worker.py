"""A worker's process: `python -m benchmarks.worker ENTRANT FOLDER CONCURRENCY`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from benchmarks.catalog import load
from benchmarks.entrant import Place
from benchmarks.jobs import attach_from_environment

OPTIONS, URL, KEEP = "CAMORA_BENCH_OPTIONS", "CAMORA_BENCH_URL", "CAMORA_BENCH_KEEP"


def main(name: str, folder: str, concurrency: str) -> None:
    attach_from_environment()
    place = Place(
        Path(folder),
        os.environ.get(URL, ""),
        json.loads(os.environ.get(OPTIONS, "{}")),
        os.environ.get(KEEP) == "1",
    )
    sys.argv = sys.argv[:1]  # nobody's own command line parser is to see ours
    with contextlib.suppress(KeyboardInterrupt):
        load(name)(place).work(int(concurrency))


if __name__ == "__main__":
    main(*sys.argv[1:])
