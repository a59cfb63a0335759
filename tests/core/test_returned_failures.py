"""A task says by its annotation that it may return a `Failure`; what it comes to is described by the rest of that."""

from __future__ import annotations

from typing import Any, Optional, Union

import pytest
from camora import Camora, Failure
from camora.errors import JobFailed
from camora.signals import successes


@pytest.mark.parametrize(
    ("returned", "success"),
    [
        (list[int] | Failure, list[int]),
        (Union[Failure, dict[str, int], None], Optional[dict[str, int]]),  # noqa: UP007, UP045 -- older ways to say it
        (int | str, int | str),
        (int, int),
        (Failure, Any),
        (None, None),
    ],
)
def test_what_a_success_is(returned: Any, success: Any) -> None:
    assert successes(returned) == success


async def test_a_result_travels_as_if_no_failure_was_spoken_of() -> None:
    app = Camora("memory://")

    @app.task
    async def numbers(few: bool) -> list[int] | Failure:
        return [1, 2] if few else Failure("too many")

    async with app, app.worker():
        job = await numbers.dispatch(few=True)
        assert await job.result(timeout=60) == [1, 2]
        results: Any = app.results
        record = await results.wait(job.id, 0)
        assert app.codec.decode_value(record.value) == [1, 2], "and not a list that says that it is one"
        with pytest.raises(JobFailed, match="too many"):
            await (await numbers.dispatch(few=False)).result(timeout=60)
