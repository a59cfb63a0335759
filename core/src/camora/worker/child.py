"""A worker process: what the supervisor starts."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from camora.errors import CamoraError, ConfigurationError
from camora.reference import import_object
from camora.worker.link import ProcessEnd
from camora.worker.process import run_worker
from camora.worker.process_health import ProcessHealth
from camora.worker.supervisor import EXIT_CONFIGURATION, EXIT_DISMISSED, assignment, check_shared
from camora.worker.worker import Ending

__all__ = ["main"]

_SKIPPED = (str(Path(__file__).parents[1]), str(Path(importlib.__file__).parent), "<frozen importlib")
"""Where frames lie that are not the user's."""


def main() -> None:
    """Run the worker that the supervisor asked for; ends the process."""
    told = assignment()
    if told is None:
        sys.exit("camora.worker.child is started by Camora's supervisor, not by hand: use  camora worker")
    health = ProcessHealth()
    link = ProcessEnd(socket.socket(fileno=told.link))

    def leave() -> bool:
        # With the supervisor gone this process begins anew by itself, and its line goes on with it.
        replaced = link.leave()
        os.set_inheritable(told.link, not replaced)
        return replaced

    threading.Thread(
        target=_serve_supervisor, args=(link, health, told.daemon), name="camora-link", daemon=True
    ).start()
    try:
        app = _import_app(told.app)
        if told.count > 1:
            check_shared(app)
        ending = run_worker(app, told.order, health=health, leaving=leave, dismissed=EXIT_DISMISSED)
    except ConfigurationError as error:
        print(f"camora: {error}", file=sys.stderr)  # noqa: T201 -- the user's mistake, in one place, without a traceback
        sys.exit(EXIT_CONFIGURATION)
    except CamoraError as error:
        print(f"camora: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    if ending is Ending.DISMISSED:
        sys.exit(EXIT_DISMISSED)


def _import_app(reference: str) -> Any:
    try:
        return import_object(reference)
    except CamoraError:
        raise
    except Exception as error:  # noqa: BLE001 -- the user's module may raise anything
        _show(error)
        sys.exit(1)


def _show(error: Exception) -> None:
    """The traceback as the user's own module would have shown it, without the frames that led there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_SKIPPED):
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))


def _serve_supervisor(link: ProcessEnd, health: ProcessHealth, ends_with_it: bool) -> None:
    """Answer the supervisor; stop as soon as it is gone."""
    link.answer_until_alone(health.look)
    if ends_with_it:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(health.longest_stop() + 5.0)
        os._exit(1)  # it did not stop; nothing that it holds is lost, because leases lapse


if __name__ == "__main__":
    main()
