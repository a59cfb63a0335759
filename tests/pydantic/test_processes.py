"""Models and a real worker in a process of its own, over a SQLite file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from camora import Camora
from camora.errors import JobFailed
from processes import WorkerProcess
from pydantic import SecretStr

from tests import forked

APPS = Path(__file__).parent / "apps"


class OrdersWorker(WorkerProcess):
    cwd = APPS


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/camora.db"


@pytest.fixture
def start(tmp_path: Path, url: str) -> Iterator[Callable[[], OrdersWorker]]:
    made: list[OrdersWorker] = []

    def begin() -> OrdersWorker:
        made.append(OrdersWorker(tmp_path, url, app="orders:app", ORDERS_BROKER=url, ORDERS_LOG=str(tmp_path / "log")))
        return made[-1]

    yield begin
    for worker in made:
        worker.destroy()


def camora(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(
        [sys.executable, "-m", "camora", *arguments],
        cwd=APPS,
        env={**os.environ, "ORDERS_BROKER": url, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_models_and_task_objects_cross_processes(
    url: str, start: Callable[[], OrdersWorker], orders: ModuleType, tmp_path: Path
) -> None:
    app: Camora = orders.make_app(url)
    worker = start().ready()
    order = orders.Order(id=1, items=[orders.Item(sku="pen", price=2.5)])
    async with app:
        jobs: list[Any] = [
            await app.tasks.get("total").dispatch(order),  # type: ignore[union-attr]
            await app.dispatch(orders.Ship(order=order, times=3, password=SecretStr("hunter2"))),
            await app.dispatch(orders.Ship, order=order, times=3, password="hunter2"),
            await Camora(url).dispatch("Ship", order=order.model_dump(), times=3, password="hunter2"),
        ]
        receipts = [await job.result(30) for job in jobs]
        assert [receipt.order for receipt in receipts[:3]] == [order] * 3
        assert [receipt.total for receipt in receipts[:3]] == [2.5, 3, 3]
        assert {receipt.process for receipt in receipts[:3]} == {worker.process.pid}
        assert receipts[1].address == orders.Address("at home")
        count = await app.dispatch(orders.Count(numbers={1, 2}))
        assert (await count.result(60))[0] == 3
        job = await Camora(url).dispatch("Ship", order={"id": 1, "items": [{"sku": "a", "price": 0}]})
        with pytest.raises(JobFailed, match=r"Ship: order\.items\[0\]\.price: input should be greater than 0"):
            await job.result(30)
    assert "hunter2" not in worker.text()


async def test_a_task_class_is_dispatched_from_the_command_line(url: str, start: Callable[[], OrdersWorker]) -> None:
    start().ready()
    done = camora(
        url, "dispatch", "Booking", "userId=7", "since=2026-01-01T00:00:00Z", "until=2026-01-01T00:01:00Z",
        "--wait", "--json", "--app", "orders:app",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == [7, 60.0, 1]
    done = camora(url, "dispatch", "Ship", "order=3", "--app", "orders:app")
    assert done.returncode != 0
    assert "Ship: order: " in done.stderr
    assert "Traceback" not in done.stderr
