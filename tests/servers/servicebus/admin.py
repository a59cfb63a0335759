"""The management interface over HTTP ("Service Bus REST API: entity management"), as the administration client asks it.

It is a function of a request: `web` has the connections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode
from xml.etree.ElementTree import Element, SubElement, tostring

from tests.servers.servicebus import atom
from tests.servers.servicebus.descriptions import (
    described_namespace,
    described_queue,
    described_rule,
    described_subscription,
    described_topic,
    kind_of,
    read_options,
    read_rule,
)
from tests.servers.servicebus.entities import (
    EntityError,
    InvalidArgument,
    Namespace,
    NotFound,
    Rule,
    Subscription,
    Target,
    Topic,
)
from tests.servers.servicebus.web import Answer, Asked

__all__ = ["Administration"]

FEED = "application/atom+xml;type=feed;charset=utf-8"
ERROR = "application/xml; charset=utf-8"


class Administration:
    """Answers requests about a namespace. `allow` says whether a token in the header `Authorization` is good."""

    def __init__(self, namespace: Namespace, allow: Callable[[str], bool] = lambda token: True) -> None:
        self.namespace = namespace
        self.allow = allow
        self.requests = 0

    def __call__(self, asked: Asked) -> Answer:
        """The answer. What is not taken is answered as the service does: a status, and an error in XML."""
        self.requests += 1
        token = asked.headers.get("authorization", "")
        if not token or not self.allow(token):
            return _error(401, "MalformedToken: the token of the request is missing, or not valid here.")
        if "api-version" not in asked.query:
            return _error(400, "The query has no api-version.")
        try:
            return self._answer(asked)
        except EntityError as error:
            return _error(error.status, str(error))

    def _answer(self, asked: Asked) -> Answer:
        parts = asked.path.strip("/").split("/")
        lowered = [part.lower() for part in parts]
        if asked.method == "GET" and lowered == ["$namespaceinfo"]:
            return self._info(asked)
        if asked.method == "GET" and lowered[0] == "$resources":
            return self._listed(asked, lowered[1:])
        # A name may have slashes of its own: /topic/subscriptions/name/rules/name
        if len(parts) >= 4 and lowered[-2] == "rules" and lowered[-4] == "subscriptions":
            return self._rule(asked, "/".join(parts[:-4]), parts[-3], parts[-1])
        if len(parts) >= 4 and lowered[-1] == "rules" and lowered[-3] == "subscriptions":
            return self._rules(asked, "/".join(parts[:-3]), parts[-2])
        if len(parts) >= 3 and lowered[-2] == "subscriptions":
            return self._subscription(asked, "/".join(parts[:-2]), parts[-1])
        if len(parts) >= 2 and lowered[-1] == "subscriptions":
            return self._subscriptions(asked, "/".join(parts[:-1]))
        return self._entity(asked, "/".join(parts))

    # Queues and topics

    def _entity(self, asked: Asked, name: str) -> Answer:
        if asked.method == "GET":
            try:
                return self._shown(asked, self.namespace.target(name))
            except NotFound:
                # Here the service does not answer 404, but a list that is empty.
                return self._page(asked, "Publicly Listed Services", [])
        if asked.method == "PUT":
            return self._put_entity(asked, name)
        if asked.method == "DELETE":
            if isinstance(self.namespace.target(name), Topic):
                self.namespace.delete_topic(name)
            else:
                self.namespace.delete_queue(name)
            return Answer(200)
        return _no_method(asked)

    def _put_entity(self, asked: Asked, name: str) -> Answer:
        description = atom.parsed(asked.body)
        topic = kind_of(description) == "TopicDescription"
        update = "if-match" in asked.headers
        if not update:
            options = read_options(description)
            (self.namespace.create_topic if topic else self.namespace.create_queue)(name, options)
        else:
            target = self.namespace.target(name)
            if isinstance(target, Topic) is not topic:
                raise InvalidArgument(f"{name}: a {kind_of(description)} was sent, and it is something else")
            options = read_options(description, target.options)
            (self.namespace.update_topic if topic else self.namespace.update_queue)(name, options)
        return self._shown(asked, self.namespace.target(name), 200 if update else 201)

    def _shown(self, asked: Asked, target: Target, status: int = 200) -> Answer:
        return Answer(status, atom.document(self._entity_entry(asked, target)))

    def _entity_entry(self, asked: Asked, target: Target) -> Element:
        if isinstance(target, Topic):
            description = described_topic(self.namespace, target)
        else:
            description = described_queue(self.namespace, target)
        times = self.namespace.times_of(target.path)
        return atom.entry(_base(asked), f"/{target.path}", target.path, description, times.created, times.updated)

    def _listed(self, asked: Asked, kind: Sequence[str]) -> Answer:
        if list(kind) not in (["queues"], ["topics"]):
            raise NotFound(f"{asked.path}: queues or topics can be listed")
        targets = self.namespace.queues() if kind[0] == "queues" else self.namespace.topics()
        return self._page(asked, kind[0].title(), targets, self._entity_entry)

    # Subscriptions

    def _subscription(self, asked: Asked, topic: str, name: str) -> Answer:
        if asked.method == "PUT":
            return self._put_subscription(asked, topic, name)
        found = self.namespace.subscription(topic, name)
        if asked.method == "GET":
            return Answer(200, atom.document(self._subscription_entry(asked, self.namespace.topic(topic), found)))
        if asked.method == "DELETE":
            self.namespace.delete_subscription(topic, name)
            return Answer(200)
        return _no_method(asked)

    def _put_subscription(self, asked: Asked, topic: str, name: str) -> Answer:
        description = atom.parsed(asked.body)
        update = "if-match" in asked.headers
        if update:
            options = read_options(description, self.namespace.subscription(topic, name).options)
            self.namespace.update_subscription(topic, name, options)
        else:
            self.namespace.create_subscription(topic, name, read_options(description))
        found = self.namespace.subscription(topic, name)
        shown = self._subscription_entry(asked, self.namespace.topic(topic), found)
        return Answer(200 if update else 201, atom.document(shown))

    def _subscriptions(self, asked: Asked, topic: str) -> Answer:
        found = self.namespace.topic(topic)
        listed = [found.subscriptions[name] for name in sorted(found.subscriptions)]
        return self._page(
            asked, "Subscriptions", listed, lambda asked, one: self._subscription_entry(asked, found, one)
        )

    def _subscription_entry(self, asked: Asked, topic: Topic, found: Subscription) -> Element:
        times = self.namespace.times_of(f"{topic.path}/{found.name}")
        description = described_subscription(self.namespace, topic, found)
        path = f"/{topic.path}/subscriptions/{found.name}"
        return atom.entry(_base(asked), path, found.name, description, times.created, times.updated)

    # Rules

    def _rule(self, asked: Asked, topic: str, subscription: str, name: str) -> Answer:
        path = f"/{topic}/subscriptions/{subscription}/rules/"
        if asked.method == "PUT":
            rule = read_rule(atom.parsed(asked.body), name)
            update = "if-match" in asked.headers
            (self.namespace.update_rule if update else self.namespace.add_rule)(topic, subscription, rule)
            rule = self.namespace.subscription(topic, subscription).rule(name)
            return Answer(200 if update else 201, atom.document(_rule_entry(asked, path, rule)))
        rule = self.namespace.subscription(topic, subscription).rule(name)
        if asked.method == "GET":
            return Answer(200, atom.document(_rule_entry(asked, path, rule)))
        if asked.method == "DELETE":
            self.namespace.remove_rule(topic, subscription, name)
            return Answer(200)
        return _no_method(asked)

    def _rules(self, asked: Asked, topic: str, subscription: str) -> Answer:
        path = f"/{topic}/subscriptions/{subscription}/rules/"
        rules = list(self.namespace.subscription(topic, subscription).rules.values())
        return self._page(asked, "Rules", rules, lambda asked, rule: _rule_entry(asked, path, rule))

    # All else

    def _info(self, asked: Asked) -> Answer:
        name = asked.headers.get("host", "").partition(":")[0]
        description = described_namespace(self.namespace, name)
        created = self.namespace.created
        return Answer(
            200, atom.document(atom.entry(_base(asked), "/$namespaceinfo", name, description, created, created))
        )

    def _page(
        self, asked: Asked, title: str, things: Sequence[Any], entry: Callable[[Asked, Any], Element] | None = None
    ) -> Answer:
        skip, top = (atom.whole(asked.query.get(name, default)) for name, default in (("$skip", "0"), ("$top", "100")))
        if skip < 0 or not 0 < top <= 100:
            raise InvalidArgument("$skip is at least 0, $top from 1 to 100")
        page = things[skip : skip + top]
        more = urlencode({"$skip": skip + top, "$top": top, "api-version": asked.query["api-version"]}, safe="$")
        entries = [entry(asked, thing) for thing in page] if entry else []
        query = more if skip + top < len(things) else None
        shown = atom.feed(_base(asked), asked.path, title, entries, query, self.namespace.ground.clock())
        return Answer(200, atom.document(shown), FEED)


def _base(asked: Asked) -> str:
    return f"https://{asked.headers.get('host', 'localhost')}"


def _rule_entry(asked: Asked, path: str, rule: Rule) -> Element:
    return atom.entry(_base(asked), path + rule.name, rule.name, described_rule(rule), rule.created, rule.created)


def _no_method(asked: Asked) -> Answer:
    return _error(405, f"{asked.method}: not a method of {asked.path}")


def _error(status: int, text: str) -> Answer:
    root = Element("Error")
    SubElement(root, "Code").text = str(status)
    SubElement(root, "Detail").text = text
    return Answer(status, tostring(root), ERROR)
