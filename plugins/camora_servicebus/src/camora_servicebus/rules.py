"""The rule of a subscription: which messages of its topic are let in. By the management interface.

The service makes each subscription with a rule that lets everything in. Ours have one rule and no other.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ResourceNotFoundError
from azure.servicebus.management import SqlRuleFilter

from camora_servicebus.topics import RULE

if TYPE_CHECKING:
    from azure.servicebus.management import ServiceBusAdministrationClient

__all__ = ["filter_of", "set_filter"]


def filter_of(client: ServiceBusAdministrationClient, topic: str, subscription: str) -> str:
    """What is let in: the text of its filter; of several, all of them with `;` between; empty: nothing is.

    Raises what the client raises.
    """
    return "; ".join(_text(rule.filter) for rule in client.list_rules(topic, subscription))


def _text(found: Any) -> str:
    if isinstance(found, SqlRuleFilter):  # those that let in everything, or nothing, are such ones, too
        return str(found.sql_expression)
    given = {**vars(found), **(getattr(found, "properties", None) or {})}
    said = [f"{name}={value!r}" for name, value in given.items() if value and name not in ("properties", "_raw")]
    return f"correlation({', '.join(said)})"


def set_filter(client: ServiceBusAdministrationClient, topic: str, subscription: str, text: str) -> None:
    """Let in what this says, and nothing else; may be repeated. Raises what the client raises."""
    there = {rule.name: rule for rule in client.list_rules(topic, subscription)}
    # Ours first: at no moment nothing is let in that should be.
    if (known := there.pop(RULE, None)) is None:
        client.create_rule(topic, subscription, RULE, filter=SqlRuleFilter(text))
    elif _text(known.filter) != text:
        known.filter = SqlRuleFilter(text)
        client.update_rule(topic, subscription, known)
    for name in there:
        with contextlib.suppress(ResourceNotFoundError):  # somebody else was faster
            client.delete_rule(topic, subscription, name)
