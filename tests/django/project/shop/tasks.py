from camora import Context
from camora_django import app

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


@app.task(name="fail")
def fail(order: int) -> None:
    raise ValueError(f"no order {order}")
