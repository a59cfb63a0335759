from django.db import transaction
from django.http import HttpRequest, JsonResponse

from shop.models import Order
from shop.tasks import ship, ship_async


def order(request: HttpRequest, item: str) -> JsonResponse:
    with transaction.atomic():
        made = Order.objects.create(item=item)
        job = ship.dispatch_sync(made.pk)
    return JsonResponse({"order": made.pk, "job": job.id})


async def order_async(request: HttpRequest, item: str) -> JsonResponse:
    made = await Order.objects.acreate(item=item)
    job = await ship_async.dispatch(made.pk)
    return JsonResponse({"order": made.pk, "job": job.id})
