"""What a settlement means in Service Bus: what is sent before it, and what the service is told then.

The service cannot do both in one step for this client. So what follows a job is stored first, and its message ends
last: whatever fails between the two, nothing is lost, and at worst something is there twice.
"""

from __future__ import annotations

import math
import time

from camora.outcome import Action, Settlement

from camora_servicebus.deferring import FAR
from camora_servicebus.lent import Lent
from camora_servicebus.letters import told
from camora_servicebus.messages import Outgoing, copy_of, more_of, properties_of
from camora_servicebus.receiving import End, Word
from camora_servicebus.routes import outgoing_of
from camora_servicebus.store import Store

__all__ = ["following", "word_for"]


def following(settlement: Settlement, store: Store) -> list[Outgoing]:
    """What is to be stored before this message may end."""
    lent: Lent = settlement.delivery.receipt
    names = store.names
    found = [outgoing_of(envelope, store) for envelope in settlement.successors]
    if lent.by.ordered:
        return found  # what follows it in its session must not pass it: it stays where it is
    if settlement.action is Action.RETRY and not _deferred(settlement):
        assert settlement.envelope is not None
        # Into the queue it came from, under a message id of its own, for a queue may know the one before.
        again = Outgoing.of(settlement.envelope, names.queue(settlement.delivery.queue), copy=copy_of(lent.message) + 1)
        again.session = lent.message.session_id
        # Filters of subscriptions look at them: where none lets a copy in, the service drops it without a word.
        again.properties, again.more = properties_of(lent.message), more_of(lent.message)
        found.append(again)
    elif settlement.action is Action.RELEASE and _by_copy(settlement, lent):
        due = math.ceil((time.time() + settlement.delay) * 1000) if settlement.delay > 0 else 0
        # A copy has no deliveries yet; the one that is coming counts as one again.
        before = lent.deliveries if settlement.charged else lent.deliveries - 1
        found.append(Outgoing.again(lent.message, names.queue(lent.queue), due=due, added=before))
    return found


def word_for(settlement: Settlement) -> Word:
    """What the service is told at last."""
    lent: Lent = settlement.delivery.receipt
    match settlement.action:
        case Action.REJECT:
            assert settlement.letter is not None
            return Word(End.BURY, *told(settlement.letter))
        case Action.RETRY if lent.by.ordered and not _deferred(settlement):
            assert settlement.envelope is not None
            return Word(End.KEEP, body=settlement.envelope.body, due=settlement.envelope.due, deliveries=1)
        case Action.RELEASE if lent.by.ordered and settlement.delay > 0:
            due = math.ceil((time.time() + settlement.delay) * 1000)
            return Word(End.KEEP, due=due, deliveries=lent.deliveries + settlement.charged)
        case Action.RELEASE if not _by_copy(settlement, lent):
            return Word(End.ABANDON if settlement.charged else End.RELEASE)
        case Action.RETRY if _deferred(settlement):
            return Word(End.DEFER)
    return Word(End.COMPLETE)


def _deferred(settlement: Settlement) -> bool:
    """Whether its job has set itself aside: the message itself stays, as it is."""
    envelope = settlement.envelope
    return envelope is not None and envelope.due > (time.time() + FAR) * 1000


def _by_copy(settlement: Settlement, lent: Lent) -> bool:
    """Whether it has to wait, which only what is sent can; or must not be counted, and would be."""
    return settlement.delay > 0 or (not settlement.charged and lent.by.counts_given_back)
