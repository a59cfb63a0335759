"""What the service refuses, with the AMQP condition and the HTTP status that it answers.

"Service Bus messaging exceptions" and "AMQP 1.0 in Azure Service Bus: request-response-based operations".
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AlreadyExists",
    "Disabled",
    "EntityError",
    "InvalidArgument",
    "LockLost",
    "MessageNotFound",
    "NotAllowed",
    "NotFound",
    "QuotaExceeded",
    "SessionCannotBeLocked",
    "SessionLockLost",
    "TooLarge",
]


class EntityError(Exception):
    """Something the service refuses. `condition` is for AMQP, `status` for `$management` and HTTP."""

    condition: ClassVar[str] = "amqp:internal-error"
    status: ClassVar[int] = 500


class NotFound(EntityError):
    """There is no such entity (or rule)."""

    condition = "amqp:not-found"
    status = 404


class AlreadyExists(EntityError):
    """There is an entity (or rule) of this name."""

    condition = "com.microsoft:entity-already-exists"
    status = 409


class MessageNotFound(EntityError):
    """No deferred or scheduled message of this sequence number."""

    condition = "com.microsoft:message-not-found"
    status = 404


class LockLost(EntityError):
    """The lock has lapsed, or the message was settled before."""

    condition = "com.microsoft:message-lock-lost"
    status = 410


class SessionLockLost(EntityError):
    """The session's lock has lapsed, or somebody else has it."""

    condition = "com.microsoft:session-lock-lost"
    status = 410


class SessionCannotBeLocked(EntityError):
    """Another receiver has the session."""

    condition = "com.microsoft:session-cannot-be-locked"
    status = 409


class TooLarge(EntityError):
    """The message, or its batch, is larger than the tier or the entity allows."""

    condition = "amqp:link:message-size-exceeded"
    status = 413


class QuotaExceeded(EntityError):
    """The entity is full."""

    condition = "amqp:resource-limit-exceeded"
    status = 403


class Disabled(EntityError):
    """The entity is disabled, for sending or for receiving."""

    condition = "com.microsoft:entity-disabled"
    status = 403


class InvalidArgument(EntityError):
    """A value that the service does not take: too long, or out of its range."""

    condition = "com.microsoft:argument-error"
    status = 400


class NotAllowed(EntityError):
    """What this entity, or this tier, cannot do."""

    condition = "amqp:not-allowed"
    status = 400
