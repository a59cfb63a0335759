"""The backend for Django's Tasks interface."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import Any

from camora import Camora
from django.core import checks

import camora_django
from camora_django.broker import DjangoBroker
from camora_django.django_app import DjangoCamora
from camora_django.interface import (
    BaseTaskBackend,
    Task,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_enqueued,
)
from camora_django.looking_up import look_up
from camora_django.order import Order, from_stamp
from camora_django.publishing import Within
from camora_django.refusing import RefusingBroker
from camora_django.running import ASYNC, SYNC

__all__ = ["CamoraBackend"]


class CamoraBackend(BaseTaskBackend):
    """Tasks are jobs of the project's app, in the database and the transactions of Django's.

    `manage.py camora worker` runs them. Results are known for as long as the app keeps them (`[results] ttl`), failed
    ones for as long as they are dead letters.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Enqueue, in the transaction that is open, if one is; blocks.

        Raises `InvalidTask`, `TypeError` or `ValueError` for arguments that are no JSON, and what a dispatch raises.
        """
        self.validate_task(task)
        app = camora_django.app
        order = Order.of(task, normalize_json(list(args)), normalize_json(dict(kwargs)))
        broker = app.broker
        where: dict[str, Any] = {}
        if isinstance(broker, DjangoBroker):
            # The scale of Django's priorities is a finer one than Camora's own.
            where["connection"] = Within(broker.alias, priority=task.priority)
        eta = datetime.fromtimestamp(order.run_after / 1000, UTC) if order.run_after else None
        runner = ASYNC if iscoroutinefunction(task.func) else SYNC
        job = app.options(queue=task.queue_name, eta=eta, **where).dispatch_sync(runner, **order.payload())
        result = TaskResult(
            task=task,
            id=job.id,
            status=TaskResultStatus.READY,
            enqueued_at=from_stamp(time.time_ns() // 1_000_000),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=order.args,
            kwargs=order.kwargs,
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """What is known of it; blocks. Raises `TaskResultDoesNotExist`."""
        app = camora_django.app
        if isinstance(app.broker, RefusingBroker):
            raise app.broker.error
        assert isinstance(app.broker, DjangoBroker), "as the check says"
        return look_up(app, app.broker.alias, result_id)

    def check(self, **options: Any) -> Iterable[checks.CheckMessage]:
        """Whether the project's app is one that this backend can use."""
        del options
        app: Camora = camora_django.app
        if isinstance(app.broker, RefusingBroker):
            return  # which another check says
        where = f"TASKS[{self.alias!r}]"
        if not isinstance(app, DjangoCamora) or not isinstance(app.broker, DjangoBroker):
            yield checks.Error(
                f"{where}: CamoraBackend reads its tasks in Django's own database, and settings.CAMORA has {app!r}.",
                hint='Give it {"broker": {"url": "django://default"}}, or none; or use tasks of that app itself.',
                id="camora.E002",
            )
        if app.results is None:
            yield checks.Error(
                f"{where}: settings.CAMORA keeps no results, so that get_result would find none.",
                hint='Leave out "results": {"enabled": False}.',
                id="camora.E003",
            )
        for name in self.options:
            yield checks.Error(f"{where}: there is no option {name!r}; CamoraBackend has none.", id="camora.E004")
