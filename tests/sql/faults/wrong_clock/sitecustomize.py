"""On the path of a process, it makes the clock of its machine wrong: by WRONG_CLOCK seconds. Steady clocks stay."""

import os
import sys
import time

_SECONDS = float(os.environ["WRONG_CLOCK"])
_time, _time_ns = time.time, time.time_ns


def _wrong() -> float:
    # Whoever keeps the ledger has a watch of his own.
    return 0 if sys._getframe(2).f_globals.get("__name__") == "camora.testing.ledger" else _SECONDS


time.time = lambda: _time() + _wrong()
time.time_ns = lambda: _time_ns() + round(_wrong() * 1_000_000_000)
