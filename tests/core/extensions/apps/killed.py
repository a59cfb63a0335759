"""An app whose extension kills its worker as soon as it has said what follows: nothing is settled yet."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from camora import Camora, Provider, hookimpl, plugins
from camora.interfaces import Ending, Extension, FollowUp, Host
from camora.plugins import Source

HEADER = "test-killed"


class Killing(Extension):
    """One job follows each; where KILL is set, it is not published by whoever says so."""

    header = HEADER
    host: Host

    def attach(self, host: Host) -> None:
        self.host = host

    async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
        note = self.host.task("note")
        assert note is not None
        answers = []
        for ending in endings:
            # A new id each time would be a second job: it has to follow from the job's.
            signature = note.s(ending.record.status.value).options(job_id=f"{ending.message.id}.next")
            answers.append(FollowUp(successors=(self.host.envelope(self.host.message(signature)),)))
        if os.environ.get("KILL"):
            # Before the settlement, which is another task of this loop.
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)
        return answers


class _Plugin:
    @staticmethod
    @hookimpl
    def camora_extensions() -> list[Provider[Any]]:
        return [Provider("killing", lambda _: Killing(), help="Test.")]


def make(broker: str, folder: Path) -> Camora:
    """The app; its tasks note in files how often they ran."""
    mine = Source(name="killing", distribution="test", version="1", load=lambda: _Plugin)
    app = Camora(broker, catalog=plugins.load([*plugins.discover(), mine]))

    @app.task(name="work")
    async def work() -> int:
        with (folder / "work").open("a") as file:
            file.write("ran\n")
        return 1

    @app.task(name="note")
    async def note(status: str) -> None:
        with (folder / "note").open("a") as file:
            file.write(f"{status}\n")

    return app


app = make(os.environ.get("SHOP_BROKER", "memory://"), Path(os.environ.get("SHOP_FOLDER", ".")))
