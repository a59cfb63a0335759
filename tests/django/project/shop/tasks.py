"""Tasks, found by their module's name."""

import threading
import time
from pathlib import Path

from camora import BaseTask, Context
from camora_django import app
from django.db import connection

from shop.models import Order


@app.task(name="ship")
def ship(order: int, context: Context) -> str:
    Order.objects.filter(pk=order).update(shipped=True, worker=context.worker)
    return Order.objects.get(pk=order).item


@app.task(name="ship_async")
async def ship_async(order: int) -> str:
    found = await Order.objects.aget(pk=order)
    found.shipped = True
    await found.asave()
    return found.item


@app.task(name="ship_elsewhere", execution="process")
def ship_elsewhere(order: int) -> str:
    Order.objects.filter(pk=order).update(shipped=True)
    return Order.objects.get(pk=order).item


@app.register
class Ship(BaseTask):
    order: int

    def execute(self) -> str:
        return ship_elsewhere(self.order)


@app.task(name="ship_all")
def ship_all() -> int:
    """Calls another task's function in the middle of reading rows, one after the other."""
    return len([ship_elsewhere(order.pk) for order in Order.objects.iterator(chunk_size=1)])


@app.task(name="fail")
def fail(order: int) -> None:
    raise ValueError(f"no order {order}")


@app.task(name="hold")
def hold(order: int, folder: str) -> None:
    """Say that it has begun, and wait to be told to go on."""
    with Path(folder, "begun").open("a") as begun:
        begun.write(f"{order}\n")
    while not Path(folder, "go").exists():
        time.sleep(0.02)
    Order.objects.filter(pk=order).update(shipped=True)


def sizes(words: list[str]) -> list[int]:
    """Registered as it is, and so found by a process without anything of Camora around it."""
    return [len(word) for word in words]


app.register(sizes, name="sizes", execution="process")


@app.task(name="connected_elsewhere", execution="process")
def connected_elsewhere() -> tuple[int, bool, int]:
    """As `connected`, in a process of the pool."""
    return look()


@app.task(name="connected")
def connected() -> tuple[int, bool, int]:
    """In a thread of the worker."""
    return look()


def look() -> tuple[int, bool, int]:
    """Which thread this is, whether it found its connection open, and the server's number for that."""
    before = connection.connection is not None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return threading.get_ident(), before, cursor.fetchone()[0]
