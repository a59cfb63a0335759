"""Job records as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from camora.outcome import ErrorInfo, JobRecord, Progress, Status

from camora_sql import statements
from camora_sql.session import Session
from camora_sql.statements.records import unrecord

__all__ = ["clean", "error_from", "error_to", "forget", "is_finished", "plain", "put_records", "record_from", "row_of"]

_LONGEST_MS = 2**60
# By their text: the hash of a member of an enumeration is computed in Python.
_FINISHED = frozenset(status.value for status in Status if status.finished)
_STATUSES = {status.value: status for status in Status}
_errors = msgspec.json.Decoder(ErrorInfo)
_progress = msgspec.json.Decoder(Progress)
_encode = msgspec.json.Encoder().encode


def put_records(session: Session, records: Sequence[JobRecord], now: int) -> bool:
    """Store a batch, in a transaction; True when a finished one is among them."""
    if len({record.id for record in records}) < len(records):
        # One statement could not tell which of two rows of one job came first.
        for record in records:
            put_records(session, [record], now)
    else:
        session.insert(statements.put_records, [row_of(record, now) for record in records], (now,))
    return any(is_finished(record) for record in records)


def forget(
    session: Session, rows: Sequence[Sequence[Any]], now: int, window: float, *, before: int = _LONGEST_MS
) -> int:
    """Delete these records (id, when it finished) if they finished before a moment, in a transaction; how many did.

    The ids of jobs that finished within the last `window` seconds go on being recognised.
    """
    ms = round(window * 1000)
    session.insert(statements.remember, [(one, end + ms) for one, end in rows if end + ms > now])
    return session.change_in(unrecord, [row[0] for row in rows], (before,))


def is_finished(record: JobRecord) -> bool:
    """As `Status.finished`."""
    return record.status.value in _FINISHED


def row_of(record: JobRecord, now: int) -> tuple[Any, ...]:
    """Its values, in the order of the columns."""
    status, error, progress = record.status.value, record.error, record.progress
    return (
        record.id,
        status,
        1 if status in _FINISHED else 0,
        plain(record.task),
        record.queue,
        1 if record.kept else 0,
        record.attempts,
        record.created,
        record.started,
        record.finished,
        record.worker,
        record.ttl,
        now + min(int(record.ttl * 1000), _LONGEST_MS),
        None if error is None else error_to(error),
        None if progress is None else _encode(progress).decode(),
        record.value,
    )


def record_from(row: Sequence[Any]) -> JobRecord:
    """The record of a whole row; what somebody has damaged in it is left out, so that it hides no other one."""
    job_id, status, _, task, queue, kept, attempts, created, started, finished, worker, ttl = row[:12]
    _, error, progress, value = row[12:]
    return JobRecord(
        id=job_id,
        status=_STATUSES.get(status, Status.UNKNOWN),
        task=task,
        queue=queue,
        value=value,
        kept=bool(kept),
        error=error_from(error),
        attempts=attempts,
        created=created,
        started=started,
        finished=finished,
        worker=worker,
        progress=_progress_from(progress),
        ttl=ttl,
    )


def error_to(error: ErrorInfo) -> str:
    """An error as JSON."""
    try:
        return _encode(error).decode()
    except UnicodeEncodeError:
        # Half a character, perhaps from a file name: the rest of the text is worth keeping.
        return _encode(
            ErrorInfo(
                type=clean(error.type), text=clean(error.text), traceback=clean(error.traceback), timeout=error.timeout
            )
        ).decode()


def error_from(text: str | None) -> ErrorInfo | None:
    """The same back; what is no such JSON becomes an error that holds it."""
    if text is None:
        return None
    try:
        return _errors.decode(text)
    except msgspec.MsgspecError:
        return ErrorInfo(type="camora_sql.UnreadableError", text=str(text))


def _progress_from(text: str | None) -> Progress | None:
    if text is None:
        return None
    try:
        return _progress.decode(text)
    except msgspec.MsgspecError:
        return None


def plain(text: str) -> str:
    """The text without what not every database stores: halves of characters, and NUL."""
    return text if text.isascii() and "\0" not in text else clean(text).replace("\0", "\ufffd")


def clean(text: str) -> str:
    """The text without halves of characters."""
    return text.encode(errors="replace").decode()
