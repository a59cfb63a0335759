"""A shop: each order is a workflow; large ones wait for somebody's word; one worker process is killed on the way.

    python examples/orders/orders.py [--broker URL] [--orders N] [--no-kill]

At the end it looks at the books: every order that was shipped is paid exactly once, and nobody else has paid.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", help="the URL of any broker that keeps workflows; default: a SQLite file")
    parser.add_argument("--orders", type=int, default=12, help="how many (default 12)")
    parser.add_argument("--no-kill", action="store_true", help="let every worker live")
    return parser.parse_args()


async def signalled(job: Any, granted: bool) -> None:
    """Say yes or no to the job that pays, as soon as its id is known; it may wait for that already, or not yet."""
    from tasks import app

    paying = [member.id async for member in job.members() if member.name == "paid"]
    await app.signal(paying[0], "approved", granted)


async def ended(job: Any) -> None:
    """What a workflow comes to is known before what follows it has run: here the apology."""
    while [one async for one in job.members() if one.status in ("waiting", "queued")]:  # noqa: ASYNC110 -- elsewhere
        await asyncio.sleep(0.05)


async def shop(options: argparse.Namespace, bank: Path) -> bool:
    from camora.errors import JobFailed
    from tasks import Order, app, fulfil

    orders = [
        Order(number, ["tea", "unicorn" if number % 4 == 3 else "coffee"], 20_000 if number % 4 in (1, 2) else 500)
        for number in range(options.orders)
    ]
    async with app:
        workers = app.start_processes(processes=2, concurrency=8)
        jobs = [await fulfil(order).options(job_id=f"order-{order.number}").dispatch() for order in orders]
        shipped: list[int] = []
        for order, job in zip(orders, jobs, strict=True):
            if order.is_large:
                await signalled(job, granted=order.number % 4 == 1)
            try:
                found = await job.result(timeout=120)
                shipped.append(order.number)
                print(f"order {order.number}: {found['shipped']}")
            except JobFailed as error:
                print(f"order {order.number}: {str(error).splitlines()[0]}")
                await ended(job)
            if len(shipped) == 1 and not options.no_kill:
                options.no_kill = True
                os.kill(workers.pids[0], signal.SIGKILL)
                print(f"killed worker process {workers.pids[0]} with SIGKILL")
        workers.stop()
        await asyncio.to_thread(workers.join)
    return balanced(orders, shipped, bank)


def balanced(orders: list[Any], shipped: list[int], bank: Path) -> bool:
    paid = sorted(int(receipt.name.partition("-")[0]) for receipt in bank.glob("*-*"))
    sorry = sorted(int(letter.stem) for letter in bank.glob("*.sorry"))
    expected = [order.number for order in orders if order.number % 4 in (0, 1)]
    right = paid == shipped == expected and sorry == [one.number for one in orders if one.number not in expected]
    print(f"{len(shipped)} shipped, {len(paid)} paid, {len(sorry)} apologies: {'✓' if right else '✗ WRONG'}")
    return right


def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    os.environ.setdefault("CAMORA_LOG_LEVEL", "ERROR")
    os.environ.setdefault("CAMORA_WORKER__LEASE", "3")
    with tempfile.TemporaryDirectory(prefix="orders-") as folder:
        bank = Path(folder) / "bank"
        bank.mkdir()
        os.environ["ORDERS_BANK"] = str(bank)
        os.environ["ORDERS_BROKER"] = options.broker or f"sqlite:///{folder}/orders.db"
        right = asyncio.run(shop(options, bank))
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
