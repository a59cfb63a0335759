"""A queue of Azure Service Bus as an app declares it."""

from __future__ import annotations

import attrs
import camora.queue
from camora.errors import ConfigurationError
from camora.settings import Duration, Size
from camora.validators import seconds_or_none

from camora_servicebus.bounds import DAY, GIB, KIB, MIB, amount, as_bytes, flag, queue_name, time
from camora_servicebus.entity import ServiceBusEntity

__all__ = ["ServiceBusQueue"]


@attrs.frozen
class ServiceBusQueue(ServiceBusEntity):
    """A queue of Service Bus, with what makes it different from plain ones.

    `camora servicebus apply` makes it, and changes it where it can be changed. None: not said; then a queue that is
    made has Camora's or the service's default, and one that exists is left as it is. Durations are seconds or texts
    such as "30s", sizes bytes or texts such as "2GiB". Raises `ConfigurationError` for what cannot be.

    With `declare=False` the queue is somebody else's: it must exist, and is used as it is.
    """

    duplicate_detection: Duration | None = attrs.field(
        default=None, converter=seconds_or_none, validator=time(20, 7 * DAY), kw_only=True
    )
    """For how long the service drops messages with an id that it has seen: 20 s to 7 days; None: it does not.

    The time can be changed, but whether there is one cannot.
    """
    max_size: Size | None = attrs.field(
        default=None, converter=as_bytes, validator=amount(GIB, 80 * GIB, GIB), kw_only=True
    )
    """How much it holds: 1 to 5 GiB, up to 80 GiB in the Premium tier. When it is full, dispatching is refused."""
    max_message_size: Size | None = attrs.field(
        default=None, converter=as_bytes, validator=amount(MIB, 100 * MIB, KIB), kw_only=True
    )
    """The largest message, in the Premium tier alone: 1 to 100 MiB."""
    partitioned: bool | None = attrs.field(default=None, validator=flag, kw_only=True)
    """Whether it is kept by several brokers of the service. Cannot be changed."""
    forward_to: str | None = attrs.field(default=None, validator=queue_name, kw_only=True)
    """The queue that gets all of its messages: no worker takes any from here."""

    def __attrs_post_init__(self) -> None:
        wrong = ""
        if self.forward_to is not None and self.sessions:
            wrong = "a queue with sessions cannot forward its messages: leave one of the two out"
        elif self.name in (self.forward_to, self.forward_dead_letters_to):
            wrong = "it cannot forward to itself: name another queue"
        elif not self.declare and (said := _said(self)):
            wrong = f"declare=False means that it is somebody else's, and used as it is: leave {', '.join(said)} out"
        if wrong:
            raise ConfigurationError(f"ServiceBusQueue({self.name!r}): {wrong}")


def _said(queue: ServiceBusQueue) -> list[str]:
    """What only the owner of a queue decides; whether it has sessions its users must know, too."""
    others = {"sessions", "declare", *(field.name for field in attrs.fields(camora.queue.Queue))}
    fields = (field.name for field in attrs.fields(ServiceBusQueue) if field.name not in others)
    return [name for name in fields if getattr(queue, name) is not None]
