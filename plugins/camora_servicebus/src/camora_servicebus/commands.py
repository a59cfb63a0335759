"""`camora servicebus …`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import cyclopts
from camora.command_options import JsonOption, Which
from camora.errors import CamoraError, ConfigurationError

from camora_servicebus import showing
from camora_servicebus.admin import Admin, Tier
from camora_servicebus.admin_errors import NotAllowed
from camora_servicebus.applying import carried_out, checked, planned
from camora_servicebus.broker import ServiceBusBroker
from camora_servicebus.wanting import wanted_of_app

__all__ = ["build"]

_PENDING = 1
"""How a dry run ends that found something to do."""


_ANY = Which()


def build(find_app: Callable[..., Any]) -> cyclopts.App:
    """The commands; the function finds an app as the core's commands do."""
    app = cyclopts.App(name="servicebus", help="Queues and topics of an app in Azure Service Bus.")

    @app.command
    def apply(
        *,
        dry_run: Annotated[
            bool,
            cyclopts.Parameter(
                name="--dry-run",
                negative=(),
                show_default=False,
                help="Show what would be done, and do nothing; exits with 1 when there is something to do.",
            ),
        ] = False,
        as_json: JsonOption = False,
        which: Which = _ANY,
    ) -> int:
        """Make the queues, topics and subscriptions that the app declares, and change what is not as declared.

        Shows what is to be done first, then does it. What an app does not say is left as it is, and nothing is ever
        deleted. May be repeated, and run anywhere at the same time. Needs a key or an identity that may manage the
        namespace.
        """
        found = find_app(which.app, config=which.config, profile=which.profile)
        if not isinstance(found.broker, ServiceBusBroker):
            raise ConfigurationError(
                f"the app {found.name!r} has no queues in Azure Service Bus: its broker is {found.broker!r}. Say "
                "servicebus://NAME.servicebus.windows.net in [broker] of camora.toml, or name another app by --app"
            )
        return asyncio.run(_apply(found, dry_run=dry_run, as_json=as_json))

    return app


async def _apply(app: Any, *, dry_run: bool, as_json: bool) -> int:
    store = app.broker.database
    async with Admin(store) as admin:
        tier = await _tier(admin)
        changes = await planned(admin, wanted_of_app(app))
        if not as_json:
            _print(showing.head_line(store.label, tier), *showing.as_lines(changes))
        pending = [change for change in changes if change.action != "same"]
        done: list[Any] = []
        error: CamoraError | None = None
        try:
            checked(changes, store.label)
            if not dry_run:
                async for change in carried_out(admin, pending):
                    done.append(change)
                    if not as_json:
                        _print(showing.done_line(change))
        except CamoraError as failure:
            error = failure
    if as_json:
        entities = [showing.as_data(change, done=change in done) for change in changes]
        answer = {"ok": error is None, "namespace": store.label, "tier": tier.tier, "dry_run": dry_run}
        _print(json.dumps({**answer, "entities": entities}, indent=2, ensure_ascii=False))
    if error is not None:
        if done:
            _say(f"{len(done)} of {len(pending)} were done; run it again, and it goes on from there")
        raise error
    if not as_json:
        _print(showing.counted(changes, done=not dry_run))
    return _PENDING if dry_run and pending else 0


async def _tier(admin: Admin) -> Tier:
    """Of the namespace; who may manage one queue alone is not told."""
    try:
        return await admin.namespace()
    except NotAllowed:
        return Tier(name="", tier="unknown")


def _print(*lines: str) -> None:
    for line in lines:
        print(line)  # noqa: T201 -- a command's answer


def _say(remark: str) -> None:
    print(f"camora: {remark}", file=sys.stderr)  # noqa: T201
