"""What a message of Camora's is in the service: which properties it has, and what is read from them.

The body is the encoded message and nothing else. `correlation_id` is the job's id, `subject` the task's name. The
`message_id` is the job's id, too, of the first copy, and `ID:1`, `ID:2`, … of those that follow it: a retry, or what is
given back, must not be taken for a repetition by a queue that detects duplicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from camora.message import Envelope

from camora_servicebus.encoding import encoded
from camora_servicebus.topics import split

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage

__all__ = ["ADDED", "COPY", "TO", "Outgoing", "added_of", "body_of", "copy_of", "job_id_of", "message_id_of", "more_of",
           "properties_of", "task_of", "to_of"]  # fmt: skip

ADDED = "camora-deliveries"
"""How many deliveries are to be added to those that the service counts, or taken off: copies begin at 0 there."""
COPY = "camora-copy"
"""Which copy of its job's message this is; the first has no such property."""
TO = "camora_to"
"""The one subscription of its topic that a message is for; rules name it, so it is a name of the service's SQL."""
_LONGEST = 128
"""Characters of a message id ("Service Bus quotas")."""
_OF_THE_SERVICE = frozenset({"DeadLetterReason", "DeadLetterErrorDescription", ADDED, COPY, TO})
"""Properties that a copy does not inherit."""


@attrs.define
class Outgoing:
    """A message on its way to an entity; `due` is milliseconds since the epoch, 0 for now.

    One for a subscription is sent to its topic.
    """

    entity: str
    job_id: str
    task: str
    body: bytes = attrs.field(repr=False)
    due: int = 0
    copy: int = 0
    added: int = 0
    session: str | None = None
    properties: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Application properties of others, which copies keep."""
    more: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Further properties of the message, by their names in the client library."""

    @classmethod
    def of(cls, envelope: Envelope, entity: str, *, copy: int = 0, added: int = 0) -> Outgoing:
        """A job's message."""
        return cls(entity, envelope.id, envelope.task, envelope.body, envelope.due, copy, added)

    @classmethod
    def again(cls, received: ServiceBusReceivedMessage, entity: str, *, due: int = 0, added: int = 0) -> Outgoing:
        """The next copy of a message that was received or peeked, whoever has sent it."""
        return cls(
            entity,
            job_id_of(received),
            task_of(received),
            body_of(received),
            due,
            copy_of(received) + 1,
            added,
            received.session_id,
            properties_of(received),
            more_of(received),
        )

    @property
    def target(self) -> str:
        """Where it is sent: an entity that takes messages."""
        return split(self.entity)[0]

    @property
    def message_id(self) -> str:
        """What duplicates are detected by."""
        to = split(self.entity)[1]
        # Each subscription has copies of its own of the same job.
        return message_id_of(f"{self.job_id}:{to}" if to else self.job_id, self.copy)

    def message(self) -> ServiceBusMessage:
        """As the client library wants it; for one use."""
        from azure.servicebus import ServiceBusMessage

        made = ServiceBusMessage(
            self.body,
            message_id=self.message_id,
            correlation_id=self.job_id,
            subject=self.task or None,
            session_id=self.session,
            application_properties=dict(self._application().items()) or None,
            **self.more,
        )
        if self.due:
            made.scheduled_enqueue_time_utc = datetime.fromtimestamp(self.due / 1000, UTC)
        return made

    def encoded(self) -> bytes:
        """The same in bytes."""
        texts = {_PLACES[name]: str(value) for name, value in self.more.items() if name in _PLACES}
        texts |= {0: self.message_id, 5: self.job_id}
        if self.task:
            texts[3] = self.task
        if self.session is not None:
            texts[10] = self.session
        annotations: dict[str, Any] = {"x-opt-scheduled-enqueue-time": self.due} if self.due else {}
        if (partition := self.more.get("partition_key")) is not None:
            annotations["x-opt-partition-key"] = partition
        return encoded(
            self.body, properties=sorted(texts.items()), application=self._application(), annotations=annotations
        )

    def _application(self) -> Mapping[str, Any]:
        """Application properties: those of others, and ours."""
        to = split(self.entity)[1]
        ours = {ADDED: self.added, COPY: self.copy, TO: to}
        return {**self.properties, **{name: value for name, value in ours.items() if value}}


_PLACES = {"to": 2, "reply_to": 4, "content_type": 6, "reply_to_session_id": 12}
"""Of properties in their section."""


def message_id_of(job_id: str, copy: int = 0) -> str:
    """The message id of a job's copy; of an id that is too long for one, a short one that stands for it."""
    suffix = f":{copy}" if copy else ""
    if len(job_id) + len(suffix) > _LONGEST:
        job_id = hashlib.sha256(job_id.encode(errors="surrogatepass")).hexdigest()
    return job_id + suffix


# Of what came in: from anywhere, so that each of these copes with everything.


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _properties(received: ServiceBusReceivedMessage) -> dict[str, Any]:
    found = received.application_properties or {}
    return {_text(name): _text(value) if isinstance(value, (bytes, str)) else value for name, value in found.items()}


def body_of(received: ServiceBusReceivedMessage) -> bytes:
    """The body as one text of bytes; of a message that has none, because its sender has sent a value, that as JSON."""
    found: Any = received.body
    if isinstance(found, bytes):
        return found
    if isinstance(found, str):
        return found.encode(errors="surrogatepass")
    if received.body_type.name == "DATA":
        return b"".join(found)
    value = list(found) if received.body_type.name == "SEQUENCE" else found
    try:
        return msgspec.json.encode(_plain(value), enc_hook=_text)
    except Exception:  # noqa: BLE001 -- it came from anywhere
        return repr(value).encode(errors="replace")


def _plain(value: Any) -> Any:
    """With texts for the bytes that the client makes of all texts."""
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def job_id_of(received: ServiceBusReceivedMessage) -> str:
    """The job's id; of a message that has none, one made of what it is, the same each time that it comes."""
    found = _text(received.correlation_id) or _text(received.message_id)
    if found:
        return found
    number = received.sequence_number
    whole = body_of(received) + str(number or "").encode()
    return f"servicebus-{hashlib.sha256(whole).hexdigest()[:24]}"


def task_of(received: ServiceBusReceivedMessage) -> str:
    """The task's name; empty where the sender has given none."""
    return _text(received.subject)


def properties_of(received: ServiceBusReceivedMessage) -> dict[str, Any]:
    """The application properties that its sender has given it, and that its copies keep."""
    return {name: value for name, value in _properties(received).items() if name not in _OF_THE_SERVICE}


def more_of(received: ServiceBusReceivedMessage) -> dict[str, Any]:
    """The properties of the message itself that its copies keep, by their names in the client library."""
    kept = ("content_type", "partition_key", "reply_to", "reply_to_session_id", "to")
    return {name: value for name in kept if (value := getattr(received, name)) is not None}


def to_of(received: ServiceBusReceivedMessage) -> str:
    """The subscription that it is for; empty: whoever got it."""
    return _text(_properties(received).get(TO))


def added_of(received: ServiceBusReceivedMessage) -> int:
    """Deliveries to be added to the service's count; fewer than none are taken off."""
    return _whole(_properties(received).get(ADDED))


def copy_of(received: ServiceBusReceivedMessage) -> int:
    """Which copy of its job's message it is."""
    return max(0, _whole(_properties(received).get(COPY)))


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
