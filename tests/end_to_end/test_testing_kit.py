"""The testing kit as a user's project has it: an app on a real broker, tested without it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from camora import Camora, Context, RetryPolicy, inject
from camora.testing import TestWorker, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

SHOP = """
import random
import sys
from datetime import timedelta

from camora import Camora, Context, Retry, RetryPolicy, cron, every
from camora.testing import simulate

app = Camora("sqlite:///shop.db", retry_policy=RetryPolicy(max_tries=5, delay=60), queues=["mail"])

@app.task
async def nightly(context: Context) -> int:
    if random.random() < 0.2:
        raise Retry("busy")
    return context.attempt

@app.task(queue="mail")
def send(recipient: str) -> None:
    if random.random() < 0.2:
        raise OSError(recipient)

@app.task(rate_limit="20/h", priority=3)
async def call(number: int) -> None: ...

app.schedule("nightly", nightly.s(), cron("0 9 * * 1-5", tz="Europe/Paris"))
app.schedule("mail", send.si("ann"), every(hours=7))

async def scenario(worker):
    for number in range(40):
        await call.dispatch(number)
        await send.options(delay=random.uniform(0, 1000)).dispatch(f"bob{number}")
    worker.crash(send, at="finished", times=2)
    worker.lose_ack(nightly)
    worker.broker_down(60)

if __name__ == "__main__":
    found = simulate(app, scenario, length=timedelta(days=60), seed=int(sys.argv[1]))
    print("\\n".join(found.log))
"""


def run(folder: Path, *arguments: str, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "shop.py", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_same_seed_tells_the_same_story_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    first, again = run(tmp_path, "1", hash_seed="1"), run(tmp_path, "1", hash_seed="2")
    assert first == again
    assert first.count("\n") > 500
    assert first.count(" crashed ") == 2
    assert run(tmp_path, "2", hash_seed="1") != first
    # The app's own broker was never asked for anything.
    assert not (tmp_path / "shop.db").exists()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    delays=st.lists(st.integers(0, 300), min_size=1, max_size=8),
    crashes=st.lists(st.sampled_from(["received", "started", "finished", "settled"]), max_size=3),
    lost=st.integers(0, 2),
)
def test_whatever_breaks_every_job_comes_to_its_end(
    seed: int, delays: list[int], crashes: list[str], lost: int
) -> None:
    app = Camora(retry_policy=RetryPolicy(max_tries=20, delay=5))
    done: list[int] = []

    @app.task
    async def work(number: int, context: Context = inject()) -> int:
        if (number + context.attempt) % 2:
            raise OSError(number)
        done.append(number)
        return number

    async def scenario(worker: TestWorker) -> None:
        for number, delay in enumerate(delays):
            await work.options(delay=delay).dispatch(number)
        for point in crashes:
            worker.crash(at=point)  # type: ignore[arg-type]
        if lost:
            worker.lose_ack(times=lost)
        await worker.run_all()
        worker.assert_all_succeeded()

    simulate(app, scenario, seed=seed, length=timedelta(hours=1))
    assert set(done) == set(range(len(delays)))
