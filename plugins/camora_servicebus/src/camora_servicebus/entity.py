"""What the queues of Azure Service Bus have in common, be they queues there or subscriptions of topics."""

from __future__ import annotations

import attrs
import camora.queue
from camora.settings import Duration
from camora.validators import seconds_or_none, whole

from camora_servicebus.bounds import LONGEST, MINUTE, flag, queue_name, time

__all__ = ["ServiceBusEntity"]


@attrs.frozen
class ServiceBusEntity(camora.queue.Queue):
    """Workers take messages from it under locks. None: not said. With `declare=False` it is somebody else's."""

    lock_duration: Duration | None = attrs.field(
        default=None, converter=seconds_or_none, validator=time(5, 5 * MINUTE), kw_only=True
    )
    """How long a message belongs to a worker that is silent: 5 s to 5 minutes; 1 minute when it is made."""
    max_delivery_count: int | None = attrs.field(default=None, validator=whole(1, 2000), kw_only=True)
    """After so many deliveries the service itself moves a message to the dead letters; 20 when it is made."""
    sessions: bool = attrs.field(default=False, validator=flag, kw_only=True)
    """Whether every message belongs to a session. Cannot be changed."""
    time_to_live: Duration | None = attrs.field(
        default=None, converter=seconds_or_none, validator=time(1, LONGEST), kw_only=True
    )
    """After which a message that nobody took is removed."""
    dead_letter_expired: bool | None = attrs.field(default=None, validator=flag, kw_only=True)
    """Whether what is removed then goes to the dead letters; True when it is made."""
    forward_dead_letters_to: str | None = attrs.field(default=None, validator=queue_name, kw_only=True)
    """The queue that gets its dead letters."""
    idle_ttl: Duration | None = attrs.field(
        default=None, converter=seconds_or_none, validator=time(5 * MINUTE, LONGEST), kw_only=True
    )
    """After which the service deletes what nobody uses, with all that is in it: 5 minutes at least."""
    declare: bool = attrs.field(default=True, validator=flag, kw_only=True)
