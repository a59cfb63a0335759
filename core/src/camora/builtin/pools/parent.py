"""A process of the pool ends with its parent, however that ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

__all__ = ["end_with"]

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY = 2.0
"""Seconds."""


def end_with(parent: int) -> None:
    """From now on, end when the process `parent` does; at once, if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before we asked to be told
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), name="camora-parent", daemon=True).start()


def _watch(parent: int) -> None:
    """The way for other systems: the pipe from the parent ends, or somebody else is the parent."""
    process = multiprocessing.parent_process()
    while os.getppid() == parent:
        if process is None:
            threading.Event().wait(_LOOK_EVERY)
        else:
            process.join(_LOOK_EVERY)
            if not process.is_alive():
                break
    os._exit(1)
