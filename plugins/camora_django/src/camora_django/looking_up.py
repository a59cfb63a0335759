"""What is known of one of Django's tasks: from Camora's tables, over Django's own connection.

So whoever has enqueued it sees it at once, also in a transaction that is still open.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from camora import Camora
from camora.errors import DecodeError
from camora.message import Message
from camora.outcome import ErrorInfo, Status

from camora_django.interface import TaskError, TaskResult, TaskResultDoesNotExist, TaskResultStatus
from camora_django.models import DeadLetter, Job, Result
from camora_django.order import Order, from_stamp
from camora_django.running import ASYNC, SYNC

__all__ = ["look_up"]


def look_up(app: Camora, database: str, result_id: str) -> TaskResult:
    """The result of this id. Raises `TaskResultDoesNotExist` for what never was, is forgotten, or was no task."""
    # What is finished in the middle of looking is found the second time.
    for _ in range(2):
        record = _record(database, result_id)
        if record is not None and record.status == Status.SUCCEEDED.value:
            return _successful(app, record)
        job = Job.objects.using(database).filter(id=result_id).first()
        if job is not None:
            return _unfinished(app, job, record)
        letter = DeadLetter.objects.using(database).filter(id=result_id).first()
        if letter is not None:
            return _failed(app, letter, record)
    raise TaskResultDoesNotExist(result_id)


def _record(database: str, result_id: str) -> Result | None:
    now = time.time_ns() // 1_000_000
    found: Result | None = Result.objects.using(database).filter(id=result_id, expires__gt=now).first()
    return found


def _successful(app: Camora, record: Result) -> TaskResult:
    if record.task not in (SYNC, ASYNC) or record.value is None:
        raise TaskResultDoesNotExist(record.id)
    payload = dict(app.result_codec.decode_value(bytes(record.value)))
    returned = payload.pop("returned", None)
    made = _result(
        record.id,
        payload,
        status=TaskResultStatus.SUCCESSFUL,
        created=record.created,
        started=record.started,
        finished=record.finished,
        worker_ids=[record.worker] * record.attempts,
    )
    object.__setattr__(made, "_return_value", returned)  # frozen for all but backends
    return made


def _unfinished(app: Camora, job: Job, record: Result | None) -> TaskResult:
    message = _message(app, job.id, bytes(job.body))
    running = job.state == Job.State.RUNNING
    attempts = message.attempt if running else message.attempt - 1
    return _result(
        job.id,
        message.kwargs,
        status=TaskResultStatus.RUNNING if running else TaskResultStatus.READY,
        created=message.created,
        started=record.started if record else 0,
        worker_ids=[job.worker or (record.worker if record else "")] * attempts,
    )


def _failed(app: Camora, letter: DeadLetter, record: Result | None) -> TaskResult:
    message = _message(app, letter.id, bytes(letter.body))
    error = letter.failure
    return _result(
        letter.id,
        message.kwargs,
        status=TaskResultStatus.FAILED,
        created=message.created,
        started=record.started if record else 0,
        finished=record.finished if record else letter.died,
        worker_ids=[record.worker if record else ""] * letter.attempts,
        errors=[] if error is None else [_error(error)],
    )


def _message(app: Camora, result_id: str, body: bytes) -> Message:
    try:
        message = app.codec.decode(body)
    except DecodeError:
        raise TaskResultDoesNotExist(result_id) from None
    if message.task not in (SYNC, ASYNC):
        raise TaskResultDoesNotExist(result_id)
    return message


def _error(error: ErrorInfo) -> TaskError:
    path = error.type if "." in error.type else f"builtins.{error.type}"
    return TaskError(exception_class_path=path, traceback=error.traceback or error.line)


def _result(
    result_id: str,
    payload: Mapping[str, Any],
    *,
    status: TaskResultStatus,
    created: int,
    started: int,
    finished: int = 0,
    worker_ids: list[str],
    errors: list[TaskError] | None = None,
) -> TaskResult:
    order = Order.from_payload(payload)
    try:
        task = order.task()
    except ImportError as error:
        raise TaskResultDoesNotExist(result_id) from error
    return TaskResult(
        task=task,
        id=result_id,
        status=status,
        enqueued_at=from_stamp(created),
        started_at=from_stamp(started),
        finished_at=from_stamp(finished),
        last_attempted_at=from_stamp(started),
        args=order.args,
        kwargs=order.kwargs,
        backend=order.backend,
        errors=errors or [],
        worker_ids=worker_ids,
    )
