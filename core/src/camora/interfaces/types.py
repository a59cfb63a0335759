"""Types of other libraries: how their values become plain data, and plain data such values again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Misfit", "OtherTypes", "TypeSupport"]


class Misfit(ValueError):
    """A value that is not what its annotation says.

    `places` are the spots inside it, each with what is wrong there. A spot is written as in code, `.items[2].price`;
    it is empty where the value itself is wrong. The first is the one that errors are named by. `discreet` are reasons
    that quote nothing of the value, and so may be shown where there are secrets in it.
    """

    def __init__(self, places: Iterable[tuple[str, str]], *, discreet: bool = False) -> None:
        self.places: Sequence[tuple[str, str]] = tuple(places)
        self.discreet = discreet
        super().__init__("; ".join(f"{spot.removeprefix('.')}: {why}" if spot else why for spot, why in self.places))


class OtherTypes(Protocol):
    """All that an app can convert, for values inside of one's own. What these return raises `Misfit`."""

    def travels(self, annotation: Any) -> bool:
        """True when values of this type can be made from plain data."""

    def structurer(self, annotation: Any) -> Callable[[Any], Any]:
        """A function from plain data to a value of this type. Raises `TypeError` for a type that does not travel."""

    def unstructurer(self, annotation: Any) -> Callable[[Any], Any]:
        """A function from a value of this type to plain data. Raises `TypeError` for a type that does not travel."""


class TypeSupport(ABC):
    """Converts the values of some library's types, as arguments and results, nested in anything.

    Plain data is None, bool, int, float, str, lists, and mappings with text keys. Everything here is called from any
    thread, does no I/O, and is compiled once per annotation: the functions that are returned run for every job.

    A *task class* of such a library derives from its base and from `BaseTask`, in that order, and says
    `makes_fields = True`. It is then converted like any other value: its plain data, a mapping, is the payload of a
    job, and a worker runs `execute` of the object that it makes of it.
    """

    @abstractmethod
    def knows(self, annotation: Any) -> bool:
        """True for an annotation that is converted here: a class, a generic one, or `Annotated[…]`.

        Asked before the core looks at it, so it must be sure. Must not raise, and imports nothing heavy.
        """

    @abstractmethod
    def structurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        """A function from plain data to a value; it raises `Misfit` for data that does not fit.

        Raises `ConfigurationError` for a type that cannot be understood. `others` may be asked for types found inside,
        when the first value comes, not before: they may contain this one.
        """

    @abstractmethod
    def unstructurer(self, annotation: Any, others: OtherTypes) -> Callable[[Any], Any]:
        """A function from a value to plain data that `structurer` would take; it raises `Misfit` for other values."""

    def make(self, kind: type[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An object of a task class from the arguments of a call. Raises `Misfit` or `TypeError` for wrong ones."""
        return kind(*args, **kwargs)
