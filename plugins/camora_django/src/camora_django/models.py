"""Camora's tables as Django sees them: to be looked at, and never to be written.

Moments are milliseconds since the epoch; the properties beside them are datetimes. What may hold secrets, the bodies of
messages and results, is left alone here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from camora.outcome import ErrorInfo
from camora_sql.records import error_from
from django.db import models

from camora_django.names import table_name

__all__ = ["DeadLetter", "Job", "Result"]


def _moment(stamp: int | None) -> datetime | None:
    return datetime.fromtimestamp(stamp / 1000, UTC) if stamp else None


class _InTheBrokersDatabase(models.Manager[Any]):
    """Looks where the jobs are, which need not be `default`; `using` names another database."""

    def get_queryset(self) -> models.QuerySet[Any]:
        """In the database that `settings.CAMORA` names."""
        found = super().get_queryset()
        return found if self._db else found.using(_alias())


def _alias() -> str | None:
    import camora_django
    from camora_django.broker import DjangoBroker

    broker = camora_django.app.broker
    return broker.alias if isinstance(broker, DjangoBroker) else None


class Job(models.Model):
    """A job that is to run, or runs."""

    class State(models.IntegerChoices):
        """Where it stands."""

        READY = 0, "ready"
        SCHEDULED = 1, "scheduled"
        RUNNING = 2, "running"

    seq = models.BigIntegerField(primary_key=True)
    id = models.CharField(max_length=255, unique=True)
    queue = models.CharField(max_length=255)
    state = models.IntegerField(choices=State.choices)
    priority = models.IntegerField()
    due = models.BigIntegerField()
    deliveries = models.IntegerField()
    cancel = models.BooleanField()
    worker = models.CharField(max_length=255)
    expires = models.BigIntegerField(null=True)
    key = models.TextField(null=True)
    task = models.TextField()
    body = models.BinaryField()

    objects = _InTheBrokersDatabase()

    class Meta:
        managed = False
        db_table = table_name("jobs")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.task} {self.id}"

    @property
    def due_at(self) -> datetime | None:
        """When it is, or was, to run."""
        return _moment(self.due)


class Result(models.Model):
    """What became of a job, for as long as that is kept."""

    id = models.CharField(max_length=255, primary_key=True)
    status = models.CharField(max_length=16)
    task = models.TextField()
    queue = models.CharField(max_length=255)
    attempts = models.IntegerField()
    created = models.BigIntegerField()
    started = models.BigIntegerField()
    finished = models.BigIntegerField()
    worker = models.CharField(max_length=255)
    expires = models.BigIntegerField()
    error = models.TextField(null=True)
    value = models.BinaryField(null=True)

    objects = _InTheBrokersDatabase()

    class Meta:
        managed = False
        db_table = table_name("results")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.task} {self.id}: {self.status}"

    @property
    def created_at(self) -> datetime | None:
        """When it was dispatched."""
        return _moment(self.created)

    @property
    def started_at(self) -> datetime | None:
        """When its last attempt began."""
        return _moment(self.started)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return _moment(self.finished)

    @property
    def failure(self) -> ErrorInfo | None:
        """Why it failed."""
        return error_from(self.error)


class DeadLetter(models.Model):
    """A message that will not run again by itself."""

    id = models.CharField(max_length=255, primary_key=True)
    queue = models.CharField(max_length=255)
    task = models.TextField()
    reason = models.CharField(max_length=64)
    error = models.TextField(null=True)
    attempts = models.IntegerField()
    deliveries = models.IntegerField()
    died = models.BigIntegerField()
    priority = models.IntegerField()
    body = models.BinaryField()

    objects = _InTheBrokersDatabase()

    class Meta:
        managed = False
        db_table = table_name("dead_letters")
        default_permissions = ("view",)
        permissions: ClassVar[Any] = [("requeue_deadletter", "Can requeue dead letter")]

    def __str__(self) -> str:
        return f"{self.task} {self.id}: {self.reason}"

    @property
    def died_at(self) -> datetime | None:
        """When it was given up."""
        return _moment(self.died)

    @property
    def failure(self) -> ErrorInfo | None:
        """Why."""
        return error_from(self.error)
