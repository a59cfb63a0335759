"""The broker: it moves bytes, lends them out under a lease, and takes the answer.

Three objects, because they live in different places: a `Broker` publishes (in any process), a `Consumer` receives and
settles (in a worker's loop), and `Leases` keep deliveries alive (in a thread of their own, so that a blocked event
loop cannot starve them).
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import attrs

from camora.errors import UnsupportedCapability
from camora.interfaces.capabilities import Capabilities
from camora.interfaces.companions import Companions
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.queues import Queues
from camora.interfaces.results import ResultBackend
from camora.message import Delivery, Envelope
from camora.outcome import Settlement
from camora.queue import Queue, distribution_of

__all__ = ["Broker", "BrokerState", "Consumer", "ConsumerSettings", "JobState", "LeaseVerdict", "Leases"]


class BrokerState(enum.Enum):
    """Where a broker is in its life; it is opened once and closed once."""

    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class JobState(enum.StrEnum):
    """Where a message lies. `Queues.find` answers with it."""

    READY = "ready"
    SCHEDULED = "scheduled"
    LEASED = "leased"
    DEAD = "dead"


class LeaseVerdict(enum.Enum):
    """What became of a delivery at a renewal."""

    HELD = "held"
    LOST = "lost"
    """Another worker may have it; nothing settled from now on will count."""


@attrs.frozen(kw_only=True)
class ConsumerSettings:
    """What a worker asks of a consumer. `lease` is seconds; `prefetch` is how many deliveries it may hold at once."""

    queues: tuple[str, ...]
    worker: str
    lease: float = 30.0
    prefetch: int = 100


class Leases(ABC):
    """Keeps deliveries alive. Made by `Consumer.leases`, used and closed in one thread of its own.

    All methods block, and have deadlines of their own shorter than a lease: nothing else runs in that thread.
    """

    @abstractmethod
    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """Make each lease last its full length from now, by the broker's clock; one verdict each, in order.

        May be repeated. Never revives a delivery that another worker has taken. Raises `BrokerUnavailable`; then
        nothing is known, and it is called again soon.
        """

    @abstractmethod
    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those whose job somebody has asked to cancel. Cheap: called about once a second while jobs run."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. May be repeated."""


class Consumer(ABC):
    """One worker's hold on a set of queues. Belongs to the event loop in which it was made.

    `receive` is called by one coroutine at a time; `settle` may run beside it, from one other.
    """

    @abstractmethod
    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Take up to `limit` messages that are due and whose queue is not paused, the most urgent first.

        Waits up to `wait` seconds (0: not at all) until there is at least one, then returns what is there without
        waiting for more. An empty answer is no error. Taking is one atomic step: a message never leaves the store
        before its settlement. Among equals the order is that of publishing; a message given back may come late.
        Lapsed leases, of any worker, are found here too, without traffic or another process having to help.

        Expired messages are delivered, not dropped: the worker records their end. Raises `BrokerUnavailable` when the
        broker is away; the worker backs off and calls again. Cancelling it must not lose a message: what was taken
        already comes with the next call, or goes back.
        """

    @abstractmethod
    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Settle a batch; one answer each, in order: False when the delivery was no longer this worker's.

        None is for one that is to be tried again while the others were settled: its server is away, of a broker of many
        servers, or somebody else has its row locked.
        A refused settlement changes nothing at all: no record, no successor. Each one is atomic where the broker
        declares `atomic_settle`; else successors are published first and the acknowledgement comes last. May be
        repeated after an error: what was applied answers True again or False, and is never applied twice. Raises
        `BrokerUnavailable`; then the batch is tried again.
        """

    @abstractmethod
    def leases(self) -> Leases:
        """A keeper for this consumer's deliveries; called in, and used by, another thread."""

    @abstractmethod
    async def stop(self) -> None:
        """Take nothing more. A pending `receive` returns at once; what was taken ahead but not handed out goes back.

        `settle` and `leases` go on working. May be repeated.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. What is unsettled comes back to others when its lease lapses. May be repeated."""


def _unserved(broker: Broker, queue: Queue) -> str:
    kind = type(queue)
    owner = distribution_of(kind)
    known = " and ".join(one.__qualname__ for one in broker.queue_kinds)
    return (
        f"queue {queue.name!r} is a {kind.__qualname__}{f' ({owner})' if owner else ''}, a kind of queue that "
        f"{broker!r} does not serve: it serves {known}. Use a broker {f'of {owner}' if owner else 'that does'}, or "
        "make it a plain queue"
    )


class Broker(Companions, ABC):
    """A store of messages. Belongs to the event loop in which it was opened; `twin` serves another one.

    Making one does no I/O. Its text form masks secrets.
    """

    capabilities: Capabilities
    queue_kinds: tuple[type[Queue], ...] = (Queue,)
    """The kinds of queues that it serves: `Queue` itself, and classes derived from it that it knows."""
    task_options: frozenset[str] = frozenset()
    """The options of plugins that it reads in `Envelope.options`; no other one is given to it."""

    def declare(self, queues: Sequence[Queue]) -> None:
        """Hear which queues there are: all that the app has declared, each time it is called.

        Called before `open`, before `publish_within`, and again whenever another queue is declared; in any thread, so
        it does no I/O and does not wait. Twins that the app makes are told, too. A queue that was never declared is a
        plain one. A broker that serves kinds of its own names them in `queue_kinds`, and remembers here what it needs.
        Raises `UnsupportedCapability` for a kind that it does not serve; then nothing has changed.
        """
        for queue in queues:
            if type(queue) not in self.queue_kinds:
                raise UnsupportedCapability(_unserved(self, queue), capability="queue_kinds")

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing in the store. Raises `BrokerUnavailable` or `ConfigurationError`."""

    @abstractmethod
    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch, in order; returns the id that stands for each.

        When it returns, the messages are as safe as the store makes them. A message whose id the store has, or had
        within its dedup window, is not stored again; one whose `key` is taken by an unfinished job (or one finished
        within its `key_ttl`) answers with that job's id; some brokers know ids and keys for each queue apart. May be
        repeated with the same ids.

        Raises `BrokerUnavailable` when nothing was stored, `DispatchUncertain` when it cannot be known.
        """

    async def publish_within(self, connection: Any, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """As `publish`, inside a transaction of the caller's own, on a connection or session of the caller's.

        Rolled back, the messages never were; committed, they are there, and workers wake up. Nothing is committed here
        and the connection stays the caller's. What an error means for the transaction is the database's business.

        Synchronous connections are used without ever waiting for the event loop, and nothing but `connection` is used,
        so it may be called in any thread, and the broker need not be open. Raises `UnsupportedCapability` where the
        broker does not declare `transactions`, or `ConfigurationError` for a connection that is none, or is one to
        another database.
        """
        del connection, envelopes
        raise UnsupportedCapability(
            f"{self!r} has no transactions to join: options(connection=…) needs a broker in the same database as your "
            "own data (camora-sql)",
            capability="transactions",
        )

    @abstractmethod
    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer of these queues, in this loop. Queues need not exist. The caller closes it."""

    @abstractmethod
    def twin(self) -> Self:
        """An unopened broker on the same store, for another event loop or thread."""

    def own_results(self) -> ResultBackend | None:
        """An unopened result backend in the same store, if it is one: what an app uses that names no other."""
        return None

    def settles_into(self, results: ResultBackend) -> bool:
        """True when `Consumer.settle` writes `Settlement.record` where `results` reads, in the same step."""
        return False

    def abandon(self) -> None:
        """Let go of what it holds although its event loop is gone: from any thread, without waiting. May be repeated.

        Called for programs that close their loop without closing the app; a broker without threads or sockets of its
        own has nothing to do.
        """

    @property
    @abstractmethod
    def queues(self) -> Queues:
        """Inspection, cancelling, pausing. Methods the broker cannot do raise `UnsupportedCapability`."""

    @property
    @abstractmethod
    def dead_letters(self) -> DeadLetters:
        """The dead letters of this broker."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. May be repeated."""
