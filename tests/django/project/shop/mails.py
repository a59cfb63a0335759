"""Tasks in Django's own words; nobody imports this module in a worker."""

import time
from pathlib import Path

from camora_django.interface import TaskContext

from shop.models import Order

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


@task
def thank(order: int) -> str:
    return f"thank you for the {Order.objects.get(pk=order).item}"


@task(queue_name="mail", priority=-7)
async def remind(order: int, *, words: str = "please") -> dict:
    found = await Order.objects.aget(pk=order)
    return {"item": found.item, "words": words}


@task(takes_context=True)
def count(context: TaskContext, step: int) -> list:
    return [context.attempt, context.task_result.id, step]


@task
def refuse(order: int) -> None:
    raise LookupError(f"no order {order}")


@task
def shapeless() -> object:
    return object()


@task
def note(item: str) -> None:
    Order.objects.create(item=item)


@task
def wait(folder: str) -> None:
    """Say that it has begun, and wait to be told to go on."""
    Path(folder, "begun").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.02)
