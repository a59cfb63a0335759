"""Where a job is sent, and with which properties: what its queue and its options say."""

from __future__ import annotations

from typing import Any

from camora.errors import DispatchError, UnsupportedCapability
from camora.message import Envelope

from camora_servicebus.messages import Outgoing, to_of
from camora_servicebus.store import Store
from camora_servicebus.topics import split

__all__ = ["astray", "outgoing_of"]


def outgoing_of(envelope: Envelope, store: Store) -> Outgoing:
    """A job's message: to its queue, or to all subscriptions of the topic that its options name.

    Raises `DispatchError` for one without a session where there are sessions.
    """
    options = envelope.options or {}
    topic, session = options.get("topic"), options.get("session")
    if topic is None:
        made = Outgoing.of(envelope, store.names.queue(envelope.queue))
        _check_session(envelope, session, store)
    else:
        made = Outgoing.of(envelope, store.topic(topic))
        for queue in store.with_sessions(str(topic)):
            if session is None:
                raise _no_session(envelope, f"topic {str(topic)!r} gives to queue {queue!r}, which")
    made.session = session
    made.properties = dict(options.get("message_properties") or {})
    return made


def _check_session(envelope: Envelope, session: str | None, store: Store) -> None:
    sessions = store.has_sessions(envelope.queue)
    if sessions and session is None:
        raise _no_session(envelope, f"queue {envelope.queue!r}")
    if sessions is False and session is not None:
        raise UnsupportedCapability(
            f"{envelope.task}: queue {envelope.queue!r} has no sessions, so that nothing would keep the jobs of "
            f"{session!r} in order: declare it with sessions=True, or leave the session out",
            capability="task_options",
        )


def _no_session(envelope: Envelope, where: str) -> DispatchError:
    return DispatchError(
        f"{envelope.task}: {where} has sessions, and takes no job without one: give it to the task, or to the dispatch "
        f"by .options(session=…): jobs of one session run one after the other"
    )


def astray(entity: str, received: Any) -> bool:
    """Whether it is for another subscription than this entity, whose rules have let it in all the same."""
    to, mine = to_of(received), split(entity)[1]
    return bool(to and mine) and to.lower() != mine.lower()
