"""Which signals count."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from camora.worker.stop_signals import Repeats, StopSignals


def test_sigterm_within_a_second_is_a_repetition_and_sigint_is_not() -> None:
    now = [100.0]
    repeats = Repeats(lambda: now[0])
    assert repeats.counts(signal.SIGTERM)
    assert not repeats.counts(signal.SIGTERM)
    assert repeats.counts(signal.SIGINT)
    assert repeats.counts(signal.SIGINT)
    now[0] += 0.9
    assert not repeats.counts(signal.SIGTERM)
    now[0] += 0.2
    assert repeats.counts(signal.SIGTERM)


async def test_the_second_signal_is_heard_while_the_loop_is_blocked() -> None:
    stops: list[str] = []
    insisted: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(lambda: stops.append("stop"), lambda: insisted.append("now")):
        for seen in ([], ["now"]):
            os.kill(os.getpid(), signal.SIGINT)
            # The loop stands still until here: nothing but a handler runs.
            deadline = time.monotonic() + 30
            while insisted != seen:
                assert time.monotonic() < deadline
        assert stops == []
        await asyncio.sleep(0)
        assert stops == ["stop", "stop"]
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert insisted == ["now"]
    assert signal.getsignal(signal.SIGINT) is before
