"""Forgetting records by age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import pytest
from camora.builtin.memory.results import MemoryResultBackend
from camora.errors import UnsupportedCapability
from camora.interfaces import ResultBackend
from camora.outcome import JobRecord, Status


async def filled() -> MemoryResultBackend:
    backend = MemoryResultBackend()
    await backend.open()
    await backend.store(
        [
            JobRecord(id="old", status=Status.SUCCEEDED, finished=1_000),
            JobRecord(id="old-failed", status=Status.FAILED, finished=2_000),
            JobRecord(id="new", status=Status.SUCCEEDED, finished=3_000),
            JobRecord(id="running", status=Status.RUNNING, started=500),
        ]
    )
    return backend


async def left(backend: MemoryResultBackend) -> list[str]:
    ids = ["old", "old-failed", "new", "running"]
    return [record.id for record in await backend.fetch(ids) if record is not None]


async def test_what_finished_before_a_moment_is_forgotten() -> None:
    backend = await filled()
    assert await backend.prune(3_000) == 2
    assert await left(backend) == ["new", "running"]
    assert await backend.prune(3_000) == 0


async def test_failures_may_be_kept() -> None:
    backend = await filled()
    assert await backend.prune(10_000, only_successful=True) == 2
    assert await left(backend) == ["old-failed", "running"]


async def test_it_goes_in_batches() -> None:
    backend = await filled()
    assert [await backend.prune(10_000, limit=2) for _ in range(3)] == [2, 1, 0]


async def test_a_backend_that_cannot_says_so() -> None:
    class Plain(ResultBackend):
        async def open(self) -> None: ...
        async def store(self, records: Sequence[JobRecord]) -> None: ...
        async def fetch(self, job_ids: Sequence[str]) -> Sequence[JobRecord | None]:
            return [None for _ in job_ids]

        async def wait(self, job_id: str, timeout: float | None) -> JobRecord | None:
            return None

        async def forget(self, job_ids: Sequence[str]) -> int:
            return 0

        def twin(self) -> Self:
            return self

        async def close(self) -> None: ...

    with pytest.raises(UnsupportedCapability, match="go when their time is over"):
        await Plain().prune(1)
