"""Which queues a worker serves, in which lanes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from camora.errors import ConfigurationError
from camora.options import check_name
from camora.worker.worker import LaneSettings

__all__ = ["lanes"]


def lanes(
    asked: Iterable[str] | None,
    *,
    known: Iterable[str],
    own: Mapping[str, int],
    threads: Mapping[str, int],
    concurrency: int,
) -> list[LaneSettings]:
    """One lane for the queues together, and one for each queue with a concurrency of its own.

    `asked` None serves every known queue. `own` is what the app says of its queues, `threads` what this worker was
    told. Raises `ConfigurationError` for an impossible name, or threads for a queue that is not served.
    """
    names = tuple(dict.fromkeys(asked if asked is not None else (*known, *own, *threads)))
    for name in names:
        check_name("queue", name)
    for name in threads:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it serves {', '.join(names)}"
            raise ConfigurationError(f"threads for queue {name!r}, which this worker does not serve: {hint}")
    own = {**own, **threads}
    shared = tuple(name for name in names if name not in own)
    found = [LaneSettings((name,), own[name]) for name in names if name in own]
    return [LaneSettings(shared, concurrency), *found] if shared else found
