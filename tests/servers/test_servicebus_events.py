"""The events of the emulator: what the journal says was done, they say too, wherever a kill came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.servers.servicebus.entities import Incoming
from tests.servers.servicebus.events import Events, recorded


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines() if line.endswith("}")]


def did(folder: Path, kind: str) -> list[int]:
    return [event["sequence"] for event in lines(folder) if event["event"] == kind]


@given(st.data())
def test_a_kill_between_the_files_loses_no_event(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder: Path = tmp_path_factory.mktemp("events")

    def begun() -> tuple[Events, Any]:
        events = Events(folder / "events.jsonl", lambda: 1.0)
        return events, recorded(events, journal=folder / "journal", clock=lambda: 1.0)

    events, namespace = begun()
    namespace.create_queue("q")
    for _ in range(data.draw(st.integers(0, 4))):
        for _ in range(data.draw(st.integers(0, 6))):
            if data.draw(st.booleans()):
                namespace.target("q").send([Incoming(b"x")])
            elif locked := namespace.entity("q").lock(1, None):
                namespace.entity("q").complete(locked[0].token)
            if data.draw(st.booleans()):
                events.flush()
        # Killed: what had been told and not flushed is gone with the process, perhaps in the middle of a line.
        if data.draw(st.booleans()):
            with (folder / "events.jsonl").open("a") as file:
                file.write('{"event":"loc')
        events, namespace = begun()

        there = [message.sequence_number for message in namespace.entity("q").peek(0, 1000)]
        stored, completed = did(folder, "stored"), did(folder, "completed")
        assert sorted(stored) == list(range(1, len(stored) + 1))
        assert sorted([*completed, *there]) == stored
        numbers = [event["n"] for event in lines(folder)]
        assert numbers == sorted(set(numbers))
