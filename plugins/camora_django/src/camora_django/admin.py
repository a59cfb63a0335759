"""The admin's pages of jobs, results and dead letters: to be looked at; dead letters can be requeued."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from camora.errors import CamoraError
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

import camora_django
from camora_django.broker import DjangoBroker
from camora_django.models import DeadLetter, Job, Result
from camora_django.requeueing import requeue

__all__ = ["DeadLetterAdmin", "JobAdmin", "ResultAdmin"]


def _database() -> str:
    broker = camora_django.app.broker
    assert isinstance(broker, DjangoBroker), "or nothing is registered here"
    return broker.alias


def _moment(field: str, label: str) -> Callable[[Any, Any], str]:
    """A column for a moment, in the words and the time zone of the admin."""

    def shown(self: Any, found: Any) -> str:
        moment = getattr(found, f"{field}_at")
        return date_format(localtime(moment), "DATETIME_FORMAT") if moment else "-"

    displayed: Callable[[Any, Any], str] = admin.display(shown, description=label, ordering=field)
    return displayed


class QueueFilter(admin.SimpleListFilter):
    """By those queues that the app knows: to ask a long table for its own would take long."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The choices."""
        app = camora_django.app
        names = {*app.tasks.queues(), *(queue.name for queue in app.queues)}
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Those of the one that was chosen."""
        return queryset.filter(queue=self.value()) if self.value() else queryset


class _ToBeLookedAt(admin.ModelAdmin):
    """Nobody adds, changes or deletes; who may view, sees it."""

    show_full_result_count = False
    actions: Any = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """In the broker's database, without what may be large and secret."""
        return super().get_queryset(request).using(_database()).defer(*self.left_alone)

    left_alone: tuple[str, ...] = ("body",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False


class _WithFailure(_ToBeLookedAt):
    @admin.display(description="error")
    def error_line(self, found: Any) -> str:
        """In a list."""
        return found.failure.line if found.failure else "-"

    @admin.display(description="error")
    def whole_error(self, found: Any) -> SafeString | str:
        """On a page of its own."""
        failure = found.failure
        text = f"{failure.type}: {failure.text}\n\n{failure.traceback}" if failure else ""
        return format_html('<pre style="white-space: pre-wrap">{}</pre>', text.strip()) if failure else "-"


class JobAdmin(_ToBeLookedAt):
    """What is to run, and what runs."""

    due_ = _moment("due", "due")
    list_display = ("task", "queue", "state", "priority", "due_", "worker", "deliveries", "id")
    list_filter = ("state", QueueFilter)
    search_fields = ("=id", "task", "=key")
    fields = ("id", "task", "queue", "state", "priority", "due_", "worker", "deliveries", "key", "cancel")
    ordering = ("-seq",)


class ResultAdmin(_WithFailure):
    """What became of jobs."""

    left_alone = ("value",)
    created_ = _moment("created", "created")
    started_ = _moment("started", "started")
    finished_ = _moment("finished", "finished")
    list_display = ("task", "queue", "status", "finished_", "error_line", "attempts", "worker", "id")
    list_filter = ("status", QueueFilter)
    search_fields = ("=id", "task")
    fields = (
        "id", "task", "queue", "status", "attempts", "created_", "started_", "finished_", "worker", "whole_error",
    )  # fmt: skip
    ordering = ("-id",)


class DeadLetterAdmin(_WithFailure):
    """What will not run again by itself."""

    actions = ("requeue",)
    died_ = _moment("died", "died")
    list_display = ("task", "queue", "reason", "died_", "error_line", "attempts", "id")
    list_filter = ("reason", QueueFilter)
    search_fields = ("=id", "task")
    fields = ("id", "task", "queue", "reason", "attempts", "deliveries", "died_", "whole_error")
    ordering = ("-id",)

    @admin.action(description="Requeue selected dead letters", permissions=["requeue"])
    def requeue(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> None:
        """Each by itself; what is gone meanwhile is passed over."""
        done = 0
        try:
            for job_id in list(letters.values_list("pk", flat=True)):
                letter = letters.model.objects.using(_database()).filter(pk=job_id).first()
                done += letter is not None and requeue(camora_django.app, letter)
        except CamoraError as error:
            self.message_user(request, str(error), messages.ERROR)
        if done:
            what = "dead letter was" if done == 1 else "dead letters were"
            self.message_user(request, f"{done} {what} put back into the queue.", messages.SUCCESS)

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        """Who was given it."""
        return bool(request.user.has_perm("camora_django.requeue_deadletter"))


if isinstance(camora_django.app.broker, DjangoBroker):
    admin.site.register(Job, JobAdmin)
    admin.site.register(Result, ResultAdmin)
    admin.site.register(DeadLetter, DeadLetterAdmin)
