"""What an app declares and its broker has to know: its queues, and which options of plugins its tasks have."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import attrs

from camora.errors import ConfigurationError, UnsupportedCapability
from camora.interfaces.broker import Broker
from camora.queue import Queue, queue_text
from camora.validators import check_name

__all__ = ["Declarations", "check_options"]


@attrs.frozen
class _Declared:
    queue: Queue
    where: str


class Declarations:
    """Queues by name, and options by name, each with where it was declared. Owned by the app; for any thread.

    Brokers in use hear at once of what is declared later.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queues: dict[str, _Declared] = {}
        self._named: dict[str, None] = {}
        self._used: dict[str, None] = {}
        self._options: dict[str, str] = {}
        self._brokers: list[Broker] = []

    # Queues

    def name_of(self, given: str | Queue, where: str, *, broker: Broker | None = None) -> str:
        """The name of a queue; a `Queue` is declared by this, if it is not yet.

        `broker` hears of it even if it is not in use yet. Raises `ConfigurationError` for an impossible name and for a
        second declaration that differs, `UnsupportedCapability` where a broker cannot serve such a queue; nothing is
        declared then.
        """
        if not isinstance(given, Queue):
            return check_name("queue", given)
        known = self._queues.get(given.name)
        if known is None:
            self._add(_Declared(given, where), broker)
        elif known.queue != given:
            raise ConfigurationError(
                f"queue {given.name!r} is declared twice: {queue_text(known.queue)} in {known.where}, and "
                f"{queue_text(given)} in {where}. Declare it once, and give its name, {given.name!r}, elsewhere"
            )
        return given.name

    def mention(self, name: str) -> None:
        """Note that there is a queue of this name: as it is declared elsewhere, or else a plain one."""
        self._named[check_name("queue", name)] = None

    def use(self, name: str) -> None:
        """Note that a task's jobs go to this queue, for brokers that cannot ask their server which queues there are."""
        with self._lock:
            known = name in self._used or name in self._queues
            self._used[name] = None
            for each in () if known else self._brokers:
                each.declare(self._known)

    def name_of_declared(self, given: str | Queue, where: str) -> str:
        """As `name_of`, where nothing can be declared, because another process is told the name alone."""
        if isinstance(given, Queue) and given != Queue(given.name) and given.name not in self._queues:
            raise ConfigurationError(
                f"{where}: other processes are told the names of queues alone, and nothing declares "
                f"{queue_text(given)}: give it to Camora(queues=[…]) or to a task"
            )
        return self.name_of(given, where)

    def _add(self, declared: _Declared, broker: Broker | None) -> None:
        with self._lock:
            name = declared.queue.name
            self._queues[name] = declared
            try:
                for each in {id(one): one for one in (*self._brokers, broker) if one is not None}.values():
                    each.declare(self._known)
            except BaseException:
                del self._queues[name]
                raise

    @property
    def queues(self) -> tuple[Queue, ...]:
        """Every queue that was declared, and plain ones for those that were only named."""
        found = {name: Queue(name) for name in self._named}
        found.update({name: declared.queue for name, declared in self._queues.items()})
        return tuple(found.values())

    @property
    def _known(self) -> tuple[Queue, ...]:
        """Those, and plain ones to which tasks' jobs go."""
        found = {name: Queue(name) for name in self._used}
        found.update({queue.name: queue for queue in self.queues})
        return tuple(found.values())

    def place(self, name: str, where: str) -> None:
        """Say better where a queue was declared."""
        if name in self._queues:
            self._queues[name] = attrs.evolve(self._queues[name], where=where)

    # Options of plugins

    def use_options(self, names: Iterable[str], where: str) -> None:
        """Note that a task has these options. Raises `UnsupportedCapability` where a broker in use has not."""
        with self._lock:
            for broker in self._brokers:
                check_options(broker, names, where)
            for name in names:
                self._options.setdefault(name, where)

    # Brokers

    def tell(self, broker: Broker) -> None:
        """Tell a broker that is about to be used; it hears of later ones until `forget`. May be repeated.

        Raises `UnsupportedCapability` for what it cannot serve.
        """
        with self._lock:
            if any(other is broker for other in self._brokers):
                return
            for name, where in self._options.items():
                check_options(broker, (name,), where)
            broker.declare(self._known)
            self._brokers.append(broker)

    def forget(self, broker: Broker) -> None:
        """This broker is not used any more. May be repeated."""
        with self._lock:
            self._brokers = [other for other in self._brokers if other is not broker]


def check_options(broker: Broker, names: Iterable[str], where: str) -> None:
    """Raises `UnsupportedCapability` for an option that this broker does not read."""
    for name in names:
        if name not in broker.task_options:
            known = ", ".join(sorted(broker.task_options))
            raise UnsupportedCapability(
                f"{where}: {broker!r} does not know the option {name!r}: it has {known or 'no options of its own'}. "
                "Leave it out, or use the broker that it belongs to",
                capability="task_options",
            )
