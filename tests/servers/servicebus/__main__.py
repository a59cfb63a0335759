"""The emulator as a process: `python -m tests.servers.servicebus --folder ... --port ... --control-port ...`.

A port of 0 is any that is free. When it is ready it prints a line of JSON that names them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import signal
import ssl
import time
from pathlib import Path

from tests.servers.servicebus.admin import Administration
from tests.servers.servicebus.control import Control
from tests.servers.servicebus.doors import Doors
from tests.servers.servicebus.events import Events, recorded
from tests.servers.servicebus.service import Options, Service

_SWEEP = 1.0


async def _serve(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    options = Options(**json.loads(arguments.options))
    events = Events(folder / "events.jsonl", time.time)
    namespace = recorded(events, journal=folder / "journal", tier=options.tier)
    service = Service(namespace, events, options, json.loads(arguments.keys))
    doors = Doors(service, Administration(namespace, service.tokens.allows), arguments.port, _tls(arguments))
    control = Control(service, doors)
    commands = await asyncio.start_server(control.serve, "127.0.0.1", arguments.control_port, limit=1 << 24)
    await doors.open()
    events.tell({"event": "started", "port": doors.port})
    events.flush()
    ready = {"port": doors.port, "control_port": commands.sockets[0].getsockname()[1]}
    print(json.dumps(ready), flush=True)
    gc.freeze()
    gc.collect()
    gc.set_threshold(50_000, 50, 100)  # messages come and go by the thousand, and none of them is in a cycle

    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    while not done.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), _SWEEP)
        service.sweep()
    await doors.shut()
    for connection in list(service.connections):
        connection.close("amqp:connection:forced", "The service is going down.")
    commands.close()
    namespace.close()
    events.close()


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    if arguments.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.certificate_key)
    return context


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.servicebus", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the journal and the events are kept")
    parser.add_argument("--port", type=int, default=0, help="for clients: AMQP, and HTTP for the administration")
    parser.add_argument("--control-port", type=int, default=0, help="for commands of tests")
    parser.add_argument("--options", default="{}", help="how it behaves, as JSON: see Options in service.py")
    parser.add_argument("--keys", default="{}", help="the shared access keys by name, as JSON")
    parser.add_argument("--certificate", help="with it the port speaks TLS: a PEM file")
    parser.add_argument("--certificate-key", help="its key, a PEM file")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
