"""The end of a process that does not end by itself."""

from __future__ import annotations

import os
import threading
import time

__all__ = ["LastResort"]

_INSISTED = 1.8
_ENDED = 3.0


class LastResort:
    """Ends this process some seconds after it was called for, whatever still holds it: leases bring back what it had.

    A blocked event loop, a broker that never answers, threads that nobody can interrupt: none of them is waited for.
    """

    def __init__(self) -> None:
        self.code = 1
        """The exit code."""
        self._reading, self._writing = os.pipe()
        threading.Thread(target=self._wait, name="camora-last-resort", daemon=True).start()

    def insist(self) -> None:
        """End it in 1.8 seconds. May be called from a signal handler."""
        os.write(self._writing, b"!")

    def ended(self) -> None:
        """The work is done: end it in 3 seconds."""
        os.write(self._writing, b".")

    def cancel(self) -> None:
        """It is not needed, unless it was called for already."""
        os.close(self._writing)

    def _wait(self) -> None:
        called = os.read(self._reading, 1)
        os.close(self._reading)
        if called:
            time.sleep(_INSISTED if called == b"!" else _ENDED)
            os._exit(self.code)
