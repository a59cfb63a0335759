"""A connection that is there when it is needed: made on demand, to whichever node answers, and made anew."""

from __future__ import annotations

from camora_amqp.errors import Refused, WireLost
from camora_amqp.store import Store
from camora_amqp.wire import Wire

__all__ = ["HEARTBEAT", "connect"]

HEARTBEAT = 20.0
"""Seconds between heartbeats, where neither the settings nor a lease say else."""


async def connect(store: Store, *, purpose: str, heartbeat: float | None = None) -> Wire:
    """Connect to the first node that answers, with heartbeats every so many seconds; None: as the settings say.

    Raises `WireLost`, or `Refused` where all that answer say no.
    """
    said: list[WireLost | Refused] = []
    for host in store.hosts():
        try:
            wire = await Wire.connect(
                store.address,
                host,
                timeout=store.settings.timeout,
                heartbeat=heartbeat or store.settings.heartbeat or HEARTBEAT,
                name=f"{store.settings.name}: {purpose}",
                context=store.context,
            )
        except (WireLost, Refused) as error:
            store.passed_by(host)
            said.append(error)
        else:
            store.external = wire.external
            return wire
    if len(said) == 1:
        raise said[0]
    text = "; ".join(str(error) for error in said)
    if all(isinstance(error, Refused) for error in said):
        raise Refused(0, text)
    raise WireLost(text)
