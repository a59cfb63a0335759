"""Options of entities and rules as the XML of the management interface, and back ("Service Bus Resource Manager and
REST: entities" and the descriptions there: QueueDescription, TopicDescription, SubscriptionDescription,
RuleDescription, NamespaceInfo)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, SubElement

import attrs

from tests.servers.servicebus import atom
from tests.servers.servicebus.entities import (
    CorrelationFilter,
    Counts,
    FalseFilter,
    Filter,
    InvalidArgument,
    Namespace,
    NotAllowed,
    QueueOptions,
    Rule,
    SqlFilter,
    Subscription,
    SubscriptionOptions,
    Target,
    Topic,
    TopicOptions,
    TrueFilter,
)

__all__ = ["described_namespace", "described_queue", "described_rule", "described_subscription", "described_topic",
           "kind_of", "read_options", "read_rule"]  # fmt: skip

MEGABYTE = 1024 * 1024


@attrs.frozen
class _Field:
    """An element, the option that it is, and how one becomes the other."""

    element: str
    option: str
    read: Callable[[str], Any]
    text: Callable[[Any], str]


def _entity_name(text: str) -> str:
    """Forwarding is to a URL or to a name."""
    return urlsplit(text).path.strip("/") if "://" in text else text


def _seconds(element: str, option: str) -> _Field:
    return _Field(element, option, atom.duration, atom.duration_text)


def _flag(element: str, option: str) -> _Field:
    return _Field(element, option, atom.truth, atom.truth_text)


def _number(element: str, option: str) -> _Field:
    return _Field(element, option, atom.whole, str)


def _bytes(element: str, option: str, unit: int) -> _Field:
    # Tests may set less than one unit; it is shown as one.
    return _Field(element, option, lambda text: atom.whole(text) * unit, lambda value: str(max(1, value // unit)))


def _text(element: str, option: str, read: Callable[[str], str] = str) -> _Field:
    return _Field(element, option, read, str)


_fields = (
    _seconds("LockDuration", "lock_duration"),
    _bytes("MaxSizeInMegabytes", "max_size", MEGABYTE),
    _flag("RequiresDuplicateDetection", "requires_duplicate_detection"),
    _flag("RequiresSession", "requires_session"),
    _seconds("DefaultMessageTimeToLive", "default_time_to_live"),
    _flag("DeadLetteringOnMessageExpiration", "dead_lettering_on_message_expiration"),
    _flag("DeadLetteringOnFilterEvaluationExceptions", "dead_lettering_on_filter_errors"),
    _seconds("DuplicateDetectionHistoryTimeWindow", "duplicate_detection_window"),
    _number("MaxDeliveryCount", "max_delivery_count"),
    _flag("EnableBatchedOperations", "enable_batched_operations"),
    _text("Status", "status"),
    _text("ForwardTo", "forward_to", _entity_name),
    _text("UserMetadata", "user_metadata"),
    _flag("SupportOrdering", "support_ordering"),
    _seconds("AutoDeleteOnIdle", "auto_delete_on_idle"),
    _flag("EnablePartitioning", "enable_partitioning"),
    _flag("EnableExpress", "enable_express"),
    _text("ForwardDeadLetteredMessagesTo", "forward_dead_lettered_to", _entity_name),
    _bytes("MaxMessageSizeInKilobytes", "max_message_size", 1024),
)
_kinds: Mapping[str, type[Any]] = {
    "QueueDescription": QueueOptions,
    "TopicDescription": TopicOptions,
    "SubscriptionDescription": SubscriptionOptions,
}


def kind_of(description: Element) -> str:
    """The name of what is described."""
    return atom.local(description)


def read_options(description: Element, current: Any | None = None) -> Any:
    """The options that a description says; what it does not say is as it is, or the default.

    Raises `InvalidArgument`.
    """
    kind = _kinds.get(kind_of(description))
    if kind is None:
        raise InvalidArgument(f"{kind_of(description)}: a description of a queue, topic or subscription expected")
    said = atom.children(description)
    known = {field.name for field in attrs.fields(kind)}
    values: dict[str, Any] = {}
    for field in _fields:
        element = said.get(field.element)
        if element is not None and field.option in known and not _is_so(field, element.text or "", current):
            values[field.option] = _read(field, element.text or "")
    if "DefaultRuleDescription" in said and kind is SubscriptionOptions:
        values["default_rule"] = read_rule(said["DefaultRuleDescription"], "$Default")
    _check_ranges(values)
    return kind(**values) if current is None else attrs.evolve(current, **values)


def _check_ranges(said: Mapping[str, Any]) -> None:
    """What the service takes over this interface ("Service Bus quotas"). Tests may set less in other ways."""
    gigabytes = said.get("max_size", 1024 * MEGABYTE) / (1024 * MEGABYTE)
    for good, text in (
        (said.get("lock_duration", 60) >= 5, "LockDuration: from 5 seconds to 5 minutes"),
        (gigabytes in (1, 2, 3, 4, 5, 10, 20, 40, 80), "MaxSizeInMegabytes: whole gigabytes, like 1024 or 2048"),
        (said.get("default_time_to_live", 1) >= 1, "DefaultMessageTimeToLive: at least a second"),
        (said.get("auto_delete_on_idle", 300) >= 300, "AutoDeleteOnIdle: at least 5 minutes"),
    ):
        if not good:
            raise InvalidArgument(text)


def _is_so(field: _Field, text: str, current: Any | None) -> bool:
    """Whether it is as shown before: an update says all again, also what this interface would not take anew."""
    value = getattr(current, field.option, None)
    return value is not None and (text == field.text(value) or _read(field, text) == value)


def _read(field: _Field, text: str) -> Any:
    try:
        return field.read(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{field.element}: {error}") from None


def read_rule(description: Element, name: str) -> Rule:
    """Raises `InvalidArgument`, and `NotAllowed` for an action."""
    said = atom.children(description)
    if "Action" in said and _type_of(said["Action"]) == "SqlRuleAction":
        raise NotAllowed("Action: this emulator has no actions of rules")
    if "Name" in said and said["Name"].text:
        name = said["Name"].text
    return Rule(name, _read_filter(said["Filter"]) if "Filter" in said else TrueFilter())


def _read_filter(element: Element) -> Filter:
    kind = _type_of(element)
    said = atom.children(element)
    if kind == "TrueFilter":
        return TrueFilter()
    if kind == "FalseFilter":
        return FalseFilter()
    if kind == "SqlFilter":
        parameters = atom.untyped(said["Parameters"]) if "Parameters" in said else {}
        expression = said.get("SqlExpression")
        return SqlFilter((expression.text if expression is not None else "") or "", parameters)
    if kind == "CorrelationFilter":
        texts = {option: said[name].text for name, option in _correlation.items() if name in said}
        properties = atom.untyped(said["Properties"]) if "Properties" in said else {}
        return CorrelationFilter(**texts, properties=properties)
    raise InvalidArgument(f"Filter: the type {kind!r} is not known")


_correlation = {
    "CorrelationId": "correlation_id",
    "MessageId": "message_id",
    "To": "to",
    "ReplyTo": "reply_to",
    "Label": "label",
    "SessionId": "session_id",
    "ReplyToSessionId": "reply_to_session_id",
    "ContentType": "content_type",
}


def _type_of(element: Element) -> str:
    return element.get(f"{{{atom.INSTANCE}}}type", "").rpartition(":")[2]


def described_queue(namespace: Namespace, queue: Target) -> Element:
    """With its counts ("Message counters")."""
    counts = queue.entity.counts()
    more = {
        "SizeInBytes": str(counts.size),
        "MessageCount": str(counts.active + counts.scheduled + counts.dead),
        **_times(namespace, queue.path),
        "EntityAvailabilityStatus": "Available",
    }
    return _described("QueueDescription", _shown(namespace, queue), more, counts)


def described_topic(namespace: Namespace, topic: Topic) -> Element:
    """With its size, and how much of it is scheduled."""
    more = {
        "SizeInBytes": str(topic.stored_size()),
        **_times(namespace, topic.path),
        "SubscriptionCount": str(len(topic.subscriptions)),
        "EntityAvailabilityStatus": "Available",
    }
    return _described("TopicDescription", _shown(namespace, topic), more, topic.entity.counts())


def described_subscription(namespace: Namespace, topic: Topic, subscription: Subscription) -> Element:
    """With its counts."""
    counts = subscription.entity.counts()
    more = {
        "MessageCount": str(counts.active + counts.dead),
        **_times(namespace, f"{topic.path}/{subscription.name}"),
        "EntityAvailabilityStatus": "Available",
    }
    return _described("SubscriptionDescription", subscription.options, more, counts)


def described_rule(rule: Rule) -> Element:
    """With its filter."""
    root = Element(f"{{{atom.CONNECT}}}RuleDescription")
    _describe_filter(root, rule.filter)
    SubElement(root, f"{{{atom.CONNECT}}}Action", {f"{{{atom.INSTANCE}}}type": "EmptyRuleAction"})
    _texts(root, (("CreatedAt", atom.time_text(rule.created)), ("Name", rule.name)))
    return root


def described_namespace(namespace: Namespace, name: str) -> Element:
    """Its name and tier."""
    root = Element(f"{{{atom.CONNECT}}}NamespaceInfo")
    created = atom.time_text(namespace.created)
    texts = [("CreatedTime", created), ("MessagingSKU", namespace.tier.name)]
    if namespace.tier.name == "Premium":
        texts.append(("MessagingUnits", "1"))
    _texts(root, [*texts, ("ModifiedTime", created), ("Name", name), ("NamespaceType", "Messaging")])
    return root


def _shown(namespace: Namespace, target: Target) -> Any:
    """Its options, with the size of messages that is in force: only Premium shows it."""
    shown = target.max_message_size if namespace.tier.name == "Premium" else None
    return attrs.evolve(target.options, max_message_size=shown)


def _times(namespace: Namespace, path: str) -> dict[str, str]:
    times = namespace.times_of(path)
    updated = atom.time_text(times.updated)
    return {"CreatedAt": atom.time_text(times.created), "UpdatedAt": updated, "AccessedAt": updated}


def _described(name: str, options: Any, more: Mapping[str, str], counts: Counts) -> Element:
    root = Element(f"{{{atom.CONNECT}}}{name}")
    values = ((field, getattr(options, field.option, None)) for field in _fields)
    _texts(root, ((field.element, field.text(value)) for field, value in values if value not in (None, "")))
    _texts(root, more.items())
    details = SubElement(root, f"{{{atom.CONNECT}}}CountDetails")
    numbers = {
        "ActiveMessageCount": counts.active,
        "DeadLetterMessageCount": counts.dead,
        "ScheduledMessageCount": counts.scheduled,
        "TransferMessageCount": counts.transfer,
        "TransferDeadLetterMessageCount": counts.transfer_dead,
    }
    for element, number in numbers.items():
        SubElement(details, f"{{{atom.COUNTS}}}{element}").text = str(number)
    return root


def _describe_filter(root: Element, wanted: Filter) -> None:
    element = SubElement(root, f"{{{atom.CONNECT}}}Filter", {f"{{{atom.INSTANCE}}}type": type(wanted).__name__})
    if isinstance(wanted, CorrelationFilter):
        given = ((name, getattr(wanted, option)) for name, option in _correlation.items())
        _texts(element, ((name, text) for name, text in given if text is not None))
        atom.typed(wanted.properties, SubElement(element, f"{{{atom.CONNECT}}}Properties"))
        return
    expression = (
        wanted.expression if isinstance(wanted, SqlFilter) else "1=1" if isinstance(wanted, TrueFilter) else "1=0"
    )
    _texts(element, (("SqlExpression", expression), ("CompatibilityLevel", "20")))
    if isinstance(wanted, SqlFilter) and wanted.parameters:
        atom.typed(wanted.parameters, SubElement(element, f"{{{atom.CONNECT}}}Parameters"))


def _texts(parent: Element, texts: Iterable[tuple[str, str]]) -> None:
    for name, text in texts:
        SubElement(parent, f"{{{atom.CONNECT}}}{name}").text = text
