"""`camora scheduler`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Parameter

from camora.cli.common import OK, Where
from camora.cli.worker import log_as
from camora.errors import ConfigurationError

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["scheduler"]


def scheduler(
    app: str | None = None,
    /,
    *,
    group: Annotated[list[str] | None, Parameter(name=["--group", "-g"], negative=(), consume_multiple=False)] = None,
    log_level: str | None = None,
    log_format: str | None = None,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> int:
    """Dispatch what is due by the app's schedules, until SIGTERM or Ctrl-C. Any number may run: each tick is one job.

    Parameters
    ----------
    app
        Where the app is: module:attribute, for example shop.tasks:app; default: `app =` of camora.toml.
    group
        Only the schedules of this group; may be given again, or several separated by commas; default: all.
    log_level
        debug, info, warning or error; default info.
    log_format
        text or json; default text.
    where
        Which app.
    """
    log_as(log_level, log_format)
    where = where if app is None else attrs.evolve(where, app=app)
    found = where.find()
    if not found.broker.capabilities.shared:
        raise ConfigurationError(
            f"{found.broker!r} lives in one process: no worker would see the jobs of this one. Run  camora worker "
            "--scheduler , or use a broker that processes share, for example  sqlite:///camora.db  (camora-sql)"
        )
    _run(found, _groups(found, group))
    return OK


def _groups(app: Camora, given: Sequence[str] | None) -> list[str] | None:
    if not given:
        return None
    from camora.options import check_name

    groups = [name for text in given for name in (part.strip() for part in text.split(",")) if name]
    for name in groups:
        check_name("schedule group", name)
    return groups


def _run(app: Camora, groups: Sequence[str] | None) -> None:
    import asyncio

    from camora.worker.last_resort import LastResort
    from camora.worker.logs import set_up_logging
    from camora.worker.stop_signals import StopSignals

    set_up_logging(os.environ)
    declared = sorted({schedule.group for schedule in app.schedules.declared.by_key.values()})
    for name in groups or ():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it declares {', '.join(declared) or 'none'}"
            app.logger.warning("the app declares no schedule of group %r; %s", name, hint)

    last_resort = LastResort()

    async def work() -> None:
        # Opened by the scheduler, which waits for a broker that is away.
        try:
            scheduler = app.make_scheduler(groups=groups)
            await scheduler.run(signals=lambda stop: StopSignals(stop, last_resort.insist))
        finally:
            await app.close()

    try:
        asyncio.run(work())
    finally:
        last_resort.cancel()
