"""Requeueing dead letters over Django's connection."""

from __future__ import annotations

import contextlib

from camora import Camora
from camora.errors import DecodeError
from camora_sql.dead_letters import requeue as requeue_letter
from django.db import connections

from camora_django.broker import DjangoBroker
from camora_django.models import DeadLetter
from camora_django.publishing import change

__all__ = ["requeue"]

_AFRESH = {"attempt": 1, "misses": 0, "due": 0, "expires": None}


def requeue(app: Camora, letter: DeadLetter) -> bool:
    """Put it back into its queue as a first attempt, in the transaction that is open or in one of its own; blocks.

    False when somebody was quicker. Raises `BrokerUnavailable`.
    """
    broker = app.broker
    assert isinstance(broker, DjangoBroker), "or there were no such model in the admin"
    body = bytes(letter.body)
    with contextlib.suppress(DecodeError):  # somebody may have mended the codec; the bytes stay as they are
        body = app.codec.evolve(body, _AFRESH)
    store, job_id = broker.database, str(letter.pk)
    return change(store, connections[broker.alias], lambda runner: requeue_letter(runner, store, job_id, body))
