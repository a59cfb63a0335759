"""What a broker can do, declared, so that asking for more fails early and in words."""

from __future__ import annotations

import enum

import attrs

__all__ = ["Capabilities", "Support"]


class Support(enum.Enum):
    """How a broker supports a capability; truthy when it does."""

    NATIVE = "native"
    EMULATED = "emulated"
    UNSUPPORTED = "unsupported"

    def __bool__(self) -> bool:
        return self is not Support.UNSUPPORTED


@attrs.frozen(kw_only=True)
class Capabilities:
    """A broker's declaration. The conformance suite tests what is declared, and that the rest is refused.

    `delay`: messages with a future `due`, and delayed retries. `priority`: a higher `Envelope.priority` is received
    first. `dedup`: the same id, or the same unfinished `key`, is published once: in a queue, or in all of them.
    `fanout`: one message reaches many queues. `pause`: `Queues.pause`. `inspect`: `Queues.find`, `list`, `counts`
    of all states. `cancel`: `Queues.cancel`. `cancel_scheduled`: `Queues.cancel` of what is not due yet; who declares
    `cancel` can do that, too, and need not say so. `reschedule`: `Queues.reschedule`.
    `atomic_settle`: acknowledgement, successors, retry and (see `Broker.settles_into`) the record are one step.
    `transactions`: `Broker.publish_within`.
    `leases`: deliveries come back by themselves when their worker dies silently. `shared`: several processes may use
    it. `durable`: messages outlive every process. `largest` is bytes of a body, `longest_delay` seconds; None is no
    limit.
    """

    delay: Support = Support.UNSUPPORTED
    priority: Support = Support.UNSUPPORTED
    dedup: Support = Support.UNSUPPORTED
    fanout: Support = Support.UNSUPPORTED
    pause: Support = Support.UNSUPPORTED
    inspect: Support = Support.UNSUPPORTED
    cancel: Support = Support.UNSUPPORTED
    cancel_scheduled: Support = Support.UNSUPPORTED
    reschedule: Support = Support.UNSUPPORTED
    atomic_settle: Support = Support.UNSUPPORTED
    leases: Support = Support.UNSUPPORTED
    transactions: Support = Support.UNSUPPORTED
    shared: Support = Support.UNSUPPORTED
    durable: Support = Support.UNSUPPORTED
    largest: int | None = None
    longest_delay: float | None = None
