"""Making compositions, as type checkers see it.

A step made by `task.s(…)` without its first argument is a `Partial`: it takes the result of what comes before it. What
begins with one is a `Partial`, too, and becomes part of something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, cast, overload

from camora.dispatchable import Dispatchable, Partial

from camora_workflows.compose import Chain, Chord, Group

__all__ = ["chain", "chord", "group"]

A0 = TypeVar("A0")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
R = TypeVar("R")
S = TypeVar("S")


@overload
def chain(first: Dispatchable[A], /, *, on_success: Any = None, on_failure: Any = None) -> Chain[A]: ...
@overload
def chain(first: Partial[A0, A], /, *, on_success: Any = None, on_failure: Any = None) -> Partial[A0, A]: ...
@overload
def chain(
    first: Dispatchable[A],
    second: Partial[A, B] | Dispatchable[B],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Chain[B]: ...
@overload
def chain(
    first: Partial[A0, A], second: Partial[A, B] | Dispatchable[B], /, *, on_success: Any = None, on_failure: Any = None
) -> Partial[A0, B]: ...
@overload
def chain(
    first: Dispatchable[A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Chain[C]: ...
@overload
def chain(
    first: Partial[A0, A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Partial[A0, C]: ...
@overload
def chain(
    first: Dispatchable[A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    fourth: Partial[C, D] | Dispatchable[D],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Chain[D]: ...
@overload
def chain(
    first: Partial[A0, A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    fourth: Partial[C, D] | Dispatchable[D],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Partial[A0, D]: ...
@overload
def chain(
    first: Dispatchable[A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    fourth: Partial[C, D] | Dispatchable[D],
    fifth: Partial[D, E] | Dispatchable[E],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Chain[E]: ...
@overload
def chain(
    first: Partial[A0, A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    fourth: Partial[C, D] | Dispatchable[D],
    fifth: Partial[D, E] | Dispatchable[E],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Partial[A0, E]: ...
@overload
def chain(
    first: Dispatchable[A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    fourth: Partial[C, D] | Dispatchable[D],
    fifth: Partial[D, E] | Dispatchable[E],
    sixth: Partial[E, F] | Dispatchable[F],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Chain[F]: ...
@overload
def chain(
    first: Partial[A0, A],
    second: Partial[A, B] | Dispatchable[B],
    third: Partial[B, C] | Dispatchable[C],
    fourth: Partial[C, D] | Dispatchable[D],
    fifth: Partial[D, E] | Dispatchable[E],
    sixth: Partial[E, F] | Dispatchable[F],
    /,
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Partial[A0, F]: ...
@overload
def chain(
    first: Any,
    second: Any,
    third: Any,
    fourth: Any,
    fifth: Any,
    sixth: Any,
    seventh: Any,
    /,
    *steps: Any,
    on_success: Any = None,
    on_failure: Any = None,
) -> Chain[Any]: ...
def chain(*steps: Any, on_success: Any = None, on_failure: Any = None) -> Any:
    """One after the other: each step gets the result of the one before it first, unless it was made by `si`.

    `on_failure` runs when a step has failed for good, and `on_success` when the last one has succeeded; what becomes of
    them changes nothing of what the chain comes to. Raises `ConfigurationError` for what is no step.
    """
    return Chain(steps, on_success=on_success, on_failure=on_failure)


@overload
def group(members: Iterable[Dispatchable[R]], /, *, on_success: Any = None, on_failure: Any = None) -> Group[R]: ...
@overload
def group(
    members: Iterable[Partial[A, R]], /, *, on_success: Any = None, on_failure: Any = None
) -> Partial[A, list[R]]: ...
@overload
def group(*members: Dispatchable[R], on_success: Any = None, on_failure: Any = None) -> Group[R]: ...  # type: ignore[overload-overlap]
@overload
def group(
    *members: Partial[A, R] | Dispatchable[R], on_success: Any = None, on_failure: Any = None
) -> Partial[A, list[R]]: ...
def group(*members: Any, on_success: Any = None, on_failure: Any = None) -> Any:
    """Side by side: comes to the list of all results, in the order of the members.

    They are given one by one, or as one iterable, which is gone through when the group is dispatched: of any length,
    in constant memory. As a later step each member gets the result of the step before it. `on_failure` runs once, when
    the first member has failed. Raises `ConfigurationError` for what is no member.
    """
    several = members[0] if len(members) == 1 and not isinstance(members[0], Dispatchable) else members
    return Group(cast("Iterable[Any]", several), on_success=on_success, on_failure=on_failure)


@overload
def chord(
    header: Iterable[Dispatchable[R]] | Dispatchable[list[R]],
    body: Partial[list[R], S] | Dispatchable[S],
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Chord[S]: ...
@overload
def chord(
    header: Iterable[Partial[A, R]] | Partial[A, list[R]],
    body: Partial[list[R], S] | Dispatchable[S],
    *,
    on_success: Any = None,
    on_failure: Any = None,
) -> Partial[A, S]: ...
def chord(header: Any, body: Any, *, on_success: Any = None, on_failure: Any = None) -> Any:
    """A group, and then a body, which runs once and gets the list of all results first, in order.

    If a member does not succeed, the body is skipped, and `on_failure` runs. Raises `ConfigurationError`.
    """
    return Chord(header, body, on_success=on_success, on_failure=on_failure)
