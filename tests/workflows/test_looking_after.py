"""Settings of workflows, and what the doctor says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from camora import Camora
from camora.builtin.memory.broker import MemoryBroker
from camora.builtin.memory.results import MemoryResultBackend
from camora.errors import SettingsError
from camora.interfaces import CheckResult, WorkflowRecord
from camora_workflows.checks import checks
from camora_workflows.settings import WorkflowSettings

_DAYS = 2 * 24 * 3600 * 1000


async def examined(app: Camora) -> CheckResult:
    [check] = checks()
    async with app:
        return await check.run(app)


async def test_where_workflows_are_kept(broker_url: str) -> None:
    found = await examined(Camora(broker_url))
    assert found.ok
    assert "none stands still" in found.text


async def test_where_nothing_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBroker, "own_workflows", lambda self: None)
    monkeypatch.setattr(MemoryResultBackend, "own_workflows", lambda self: None)
    found = await examined(Camora("memory://"))
    assert found.ok
    assert "neither the broker nor the result backend keeps workflows" in found.text


async def test_one_that_stands_still_is_named_with_what_to_do(tmp_path: Path) -> None:
    app = Camora(f"sqlite:///{tmp_path}/camora.db")
    store = app.broker.own_workflows()
    assert store is not None
    await store.open()
    before = app.clock.now_ms() - _DAYS
    try:
        for name in ("still", "fresh"):
            await store.create(WorkflowRecord(id=name, created=before, changed=before))
            await store.start(name, b"", before if name == "still" else app.clock.now_ms())
    finally:
        await store.close()
    found = await examined(app)
    assert not found.ok
    assert "1 workflow has not changed for a day, such as still" in found.text
    assert "camora workflow recover" in found.fix


def test_settings_are_durations_as_people_write_them() -> None:
    settings = WorkflowSettings(keep="2d", sweep="10s", quiet=1, abandon="1h30m")
    assert (settings.keep, settings.sweep, settings.quiet, settings.abandon) == (172800.0, 10.0, 1.0, 5400.0)
    for wrong in (0, -1, "soon", True, float("inf")):
        with pytest.raises(SettingsError, match=r"^sweep = .*: expected seconds above 0"):
            WorkflowSettings(sweep=wrong)


def test_they_are_read_from_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "camora.toml"
    file.write_text('[broker]\nurl = "memory://"\n[extensions.workflows]\nkeep = "5m"\n')
    app = Camora.from_toml(file)
    assert app.composer.settings.keep == 300.0  # type: ignore[attr-defined]
    file.write_text('[broker]\nurl = "memory://"\n[extensions.workflows]\nkeeep = "5m"\n')
    with pytest.raises(SettingsError, match="keep"):
        Camora.from_toml(file)
