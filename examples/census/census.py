"""A census of the Python standard library: one job per file, on real worker processes, one of which is killed.

    python examples/census/census.py [--broker URL] [--processes N] [--limit N]

It proves its own ledger at the end: every job dispatched has either succeeded or lies in the dead letters.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", help="any broker's URL; default: a SQLite file in a temporary folder")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--limit", type=int, help="count only so many files")
    parser.add_argument("--no-kill", action="store_true", help="let every worker live")
    return parser.parse_args()


def sources(root: Path, limit: int | None) -> Iterator[Path]:
    """Every Python file of the standard library, its test data included; installed packages are not part of it."""
    found = 0
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0] in ("site-packages", "dist-packages"):
            continue
        found += 1
        if limit is not None and found > limit:
            return
        yield relative


async def census(options: argparse.Namespace, console: Console) -> bool:
    from camora.errors import JobFailed
    from camora.settings import mask_url
    from report import print_report
    from tasks import app, measure

    root = Path(sysconfig.get_path("stdlib"))
    console.print(f"Taking a census of [bold]{root}[/bold]\non [bold]{mask_url(os.environ['CENSUS_BROKER'])}[/bold]\n")
    started = time.monotonic()
    async with app:
        jobs = await app.dispatch_many(measure.s(root, path) for path in sources(root, options.limit))
        console.print(f"{len(jobs):,} jobs dispatched in {time.monotonic() - started:.2f} s")
        workers = app.start_processes(processes=options.processes, concurrency=4)
        measured, failed, killed = [], 0, options.no_kill
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        ) as progress:
            bar = progress.add_task("measuring", total=len(jobs))
            for job in jobs:
                try:
                    measured.append(await job.result())
                except JobFailed:
                    failed += 1
                progress.advance(bar)
                if not killed and len(measured) > len(jobs) // 2:
                    killed = True
                    victim = workers.pids[0]
                    os.kill(victim, signal.SIGKILL)
                    progress.console.print(f"[red]killed worker process {victim} with SIGKILL, half-way")
        workers.stop()
        await asyncio.to_thread(workers.join)
        dead = [letter async for letter in app.dead_letters()]
        console.print()
        print_report(console, measured, dead)
        whole = len(jobs) == len(measured) + len(dead) and failed == len(dead)
        mark = "[green]✓ nothing lost" if whole else "[red]✗ THE LEDGER DOES NOT ADD UP"
        sums = f"dispatched {len(jobs):,} = succeeded {len(measured):,} + dead {len(dead):,}"
        console.print(f"\n[bold]Ledger[/bold]  {sums}  {mark}")
        console.print(f"{time.monotonic() - started:.1f} s in all, with {options.processes} worker processes")
        return whole


def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    os.environ.setdefault("CAMORA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("CAMORA_WORKER__LEASE", "3")
    # The worker that is killed leaves its pool's semaphores to Python's resource tracker, which says so at length.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    with tempfile.TemporaryDirectory(prefix="census-") as folder:
        # The one line to change for another broker:
        os.environ["CENSUS_BROKER"] = options.broker or f"sqlite:///{folder}/census.db"
        whole = asyncio.run(census(options, Console()))
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
