"""Django's Tasks interface, on the far side of a worker."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.django.projects import Shop, new_shop

_PRELUDE = """
from shop import mails
from shop.models import Order
def told(result):
    result.refresh()
    return [result.status, result.attempts, result.is_finished]
"""


@attrs.frozen
class Worked:
    """A project in which a worker has been at work: the ids of what was enqueued, and what the worker said."""

    shop: Shop
    ids: dict[str, str]
    said: str


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def worked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Worked:
    """For tests that only look; the task `again` is for one that does more."""
    shop = new_shop(request.param, Path(tmp_path_factory.mktemp("worked")))
    ids = shop.python(
        f"{_PRELUDE}order = Order.objects.create(item='fork').pk\n"
        "from datetime import datetime, timedelta, UTC\n"
        "later = datetime.now(UTC) + timedelta(hours=1)\n"
        "made = {'thank': mails.thank.enqueue(order), 'remind': mails.remind.enqueue(order, words='now'),\n"
        "        'count': mails.count.enqueue(3), 'refuse': mails.refuse.enqueue(9),\n"
        "        'again': mails.refuse.enqueue(8), 'shapeless': mails.shapeless.enqueue(),\n"
        "        'note': mails.note.using(run_after=later).enqueue('later')}\n"
        "answer = {name: result.id for name, result in made.items()}"
    )
    return Worked(shop, ids, shop.manage("camora", "worker", "--burst"))


def test_tasks_run_and_their_results_are_known(worked: Worked) -> None:
    ids = {name: one for name, one in worked.ids.items() if name != "again"}
    assert f"Task id={ids['thank']} path=shop.mails.thank state=SUCCESSFUL" in worked.said
    returned = worked.shop.python(
        f"{_PRELUDE}results = [getattr(mails, name).get_result(one) for name, one in {ids!r}.items()]\n"
        "answer = {result.task.name: [told(result), result.args, result.kwargs,\n"
        "          result._return_value, result.enqueued_at <= (result.started_at or result.enqueued_at)\n"
        "          <= (result.finished_at or result.started_at or result.enqueued_at)] for result in results}"
    )
    done = ["SUCCESSFUL", 1, True]
    failed = ["FAILED", 1, True]
    assert returned == {
        "thank": [done, [1], {}, "thank you for the fork", True],
        "remind": [done, [1], {"words": "now"}, {"item": "fork", "words": "now"}, True],
        "count": [done, [3], {}, [1, ids["count"], 3], True],
        "refuse": [failed, [9], {}, None, True],
        "shapeless": [failed, [], {}, None, True],
        "note": [["READY", 0, False], ["later"], {}, None, True],
    }


def test_errors_are_told(worked: Worked) -> None:
    ids = worked.ids
    kind, trace, wrong, workers = worked.shop.python(
        f"{_PRELUDE}result = mails.refuse.get_result({ids['refuse']!r})\n"
        "[error] = result.errors\n"
        f"[other] = mails.shapeless.get_result({ids['shapeless']!r}).errors\n"
        "answer = [error.exception_class is LookupError, error.traceback,\n"
        "          other.exception_class is TypeError, result.worker_ids]"
    )
    assert kind
    assert wrong
    assert "LookupError: no order 9" in trace
    assert "mails.py" in trace
    assert "camora/builtin" not in trace
    assert len(workers) == 1


def test_a_failed_task_is_a_dead_letter_that_can_be_requeued(worked: Worked) -> None:
    shop, one = worked.shop, worked.ids["again"]
    assert one in shop.manage("camora", "dead", "list", "--json")
    shop.manage("camora", "dead", "requeue", one)
    assert shop.python(f"{_PRELUDE}answer = told(mails.refuse.get_result({one!r}))") == ["READY", 0, False]


def test_a_task_is_ready_then_running(shop: Shop, tmp_path: object) -> None:
    one = shop.python(f"{_PRELUDE}answer = mails.wait.enqueue({str(tmp_path)!r}).id")
    with shop.worker():
        states = shop.python(
            f"{_PRELUDE}import time, pathlib\n"
            f"result, folder = mails.wait.get_result({one!r}), pathlib.Path({str(tmp_path)!r})\n"
            "deadline = time.monotonic() + 60\n"
            "while not (folder / 'begun').exists() and time.monotonic() < deadline:\n"
            "    time.sleep(0.02)\n"
            "answer = [told(result)]\n"
            "(folder / 'go').touch()\n"
            "while not result.is_finished and time.monotonic() < deadline:\n"
            "    result.refresh()\n"
            "    time.sleep(0.02)\n"
            "answer.append(told(result))"
        )
    assert states == [["RUNNING", 1, False], ["SUCCESSFUL", 1, True]]
