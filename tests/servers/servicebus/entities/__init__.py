"""The entities of an emulated namespace: a pure state machine, driven by calls and a clock. No sockets, no threads."""

from tests.servers.servicebus.entities.entity import Entity
from tests.servers.servicebus.entities.errors import (
    AlreadyExists,
    Disabled,
    EntityError,
    InvalidArgument,
    LockLost,
    MessageNotFound,
    NotAllowed,
    NotFound,
    QuotaExceeded,
    SessionCannotBeLocked,
    SessionLockLost,
    TooLarge,
)
from tests.servers.servicebus.entities.filters import CorrelationFilter, FalseFilter, Filter, SqlFilter, TrueFilter
from tests.servers.servicebus.entities.messages import Counts, Incoming, Locked, Stored
from tests.servers.servicebus.entities.namespace import Namespace
from tests.servers.servicebus.entities.options import QueueOptions, Rule, SubscriptionOptions, Tier, TopicOptions
from tests.servers.servicebus.entities.sessions import Session
from tests.servers.servicebus.entities.sql import SqlError
from tests.servers.servicebus.entities.target import Target
from tests.servers.servicebus.entities.topic import Subscription, Topic

__all__ = [
    "AlreadyExists",
    "CorrelationFilter",
    "Counts",
    "Disabled",
    "Entity",
    "EntityError",
    "FalseFilter",
    "Filter",
    "Incoming",
    "InvalidArgument",
    "LockLost",
    "Locked",
    "MessageNotFound",
    "Namespace",
    "NotAllowed",
    "NotFound",
    "QueueOptions",
    "QuotaExceeded",
    "Rule",
    "Session",
    "SessionCannotBeLocked",
    "SessionLockLost",
    "SqlError",
    "SqlFilter",
    "Stored",
    "Subscription",
    "SubscriptionOptions",
    "Target",
    "Tier",
    "TooLarge",
    "Topic",
    "TopicOptions",
    "TrueFilter",
]
