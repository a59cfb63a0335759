"""What queues are called in the namespace."""

from __future__ import annotations

import hashlib
import re

from camora.errors import ConfigurationError
from camora.validators import check_name

__all__ = ["Names"]

# "Entity names can contain letters, numbers, periods, hyphens, underscores, and slashes", begin and end with a letter
# or a number, have at most 260 characters, and differ by more than case ("Service Bus quotas").
_ODD = re.compile(r"[^A-Za-z0-9._/-]|^[._/-]|[._/-]$|/(?=/)|_(?=x[0-9A-F]{2})")
_ESCAPE = re.compile(r"_x([0-9A-F]{2})")
_LEAD = "x_x00"
"""Before what does not begin with a letter or a number; no other name begins so, for none has that character."""
_LONGEST = 260
_REMEMBERED = 10_000


class Names:
    """Of all queues of one prefix. What an entity's name cannot have in it is written as `_x` and two digits.

    For any thread: what changes in it is one entry at a time.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._entities: dict[str, str] = {}
        self._queues: dict[str, str] = {}
        """By the entity's name in lower case: the service does not tell cases apart."""
        self._placed: dict[str, str] = {}
        """Queues whose entities are called otherwise."""
        self._placed_queues: dict[str, str] = {}

    def queue(self, name: str) -> str:
        """The entity of a queue.

        Raises `ConfigurationError` for a name that no queue can have, and for one that differs by case alone from
        another queue's: the service would take both for one.
        """
        found = self._placed.get(name) or self._entities.get(name)
        if found is None:
            if len(self._entities) >= _REMEMBERED:
                self._entities.clear()
                self._queues.clear()
            found = self._entity(name)
            other = self._queues.setdefault(found.lower(), name)
            if other != name:
                raise ConfigurationError(
                    f"queues {other!r} and {name!r}: Azure Service Bus takes names that differ by case alone for one; "
                    "rename one of them"
                )
            self._entities[name] = found
        return found

    def place(self, name: str, entity: str) -> None:
        """Say that the entity of this queue is that one. Raises `ConfigurationError` when it is another queue's."""
        check_name("queue", name)
        other = self._placed_queues.setdefault(entity.lower(), name)
        if other != name or self._placed.setdefault(name, entity) != entity:
            raise ConfigurationError(
                f"queues {other!r} and {name!r}: {entity!r} can be one queue alone, and a queue one entity; rename one"
            )

    def topic(self, name: str) -> str:
        """The entity of a topic. Raises `ConfigurationError` for a name that none can have."""
        return self._entity(name, "topic")

    def _entity(self, name: str, what: str = "queue") -> str:
        check_name(what, name)
        full = self.prefix + _ODD.sub(lambda odd: "".join(f"_x{byte:02X}" for byte in odd[0].encode()), name)
        if not full[0].isalnum():
            full = _LEAD + full
        if len(full) <= _LONGEST:
            return full
        return f"{full[: _LONGEST - 41]}_{hashlib.sha256(name.encode()).hexdigest()[:40]}"

    def of_queue(self, entity: str) -> str:
        """The queue whose entity this is: one that was used before, or what the name says."""
        known = self._placed_queues.get(entity.lower()) or self._queues.get(entity.lower())
        if known is not None:
            return known
        text = entity
        if entity.lower().startswith(self.prefix.lower()):
            text = entity[len(self.prefix) :]
        text = text.removeprefix(_LEAD)
        raw = _ESCAPE.sub(lambda one: chr(int(one[1], 16)), text)
        try:
            return raw.encode("latin-1").decode() if raw != text else text
        except UnicodeError:
            return text  # it is not one of ours
