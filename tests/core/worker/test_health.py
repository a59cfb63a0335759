"""What a worker's health is made of, and the endpoint that shows it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, WorkerSettings
from camora.errors import ConfigurationError
from camora.worker.health import Health, WorkerHealth
from camora.worker.health_server import HealthServer, parse_address
from camora.worker.link import ProcessEnd, SupervisorEnd, new_link
from camora.worker.process_health import ProcessHealth
from camora.worker.ready_file import ReadyFile

LOGGER = logging.getLogger("camora")
WELL = Health.of(WorkerHealth(live=True, ready=True, pid=1))
BUSY = Health.of(WorkerHealth(live=True, ready=False, reasons=("quiet",), pid=1))
DEAD = Health.of(WorkerHealth(live=False, ready=False, reasons=("blocked",), pid=1))


def test_together_they_are_as_well_as_the_worst() -> None:
    well = WorkerHealth(live=True, ready=True, pid=1)
    late = WorkerHealth(live=True, ready=False, reasons=("it has not started yet",), pid=2)
    assert (Health.of(well, well).live, Health.of(well, well).ready) == (True, True)
    both = Health.of(well, late)
    assert (both.live, both.ready, both.reasons) == (True, False, ("process 2: it has not started yet",))
    assert not Health.of().ready


class Server:
    def __init__(self, health: Health) -> None:
        self.health: Health | Exception = health
        self.server = HealthServer("127.0.0.1:0", self.look, logger=LOGGER)
        self.server.start()

    def look(self) -> Health:
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        host, _, port = self.server.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def raw(self, sent: bytes) -> bytes:
        host, _, port = self.server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as made:
            made.sendall(sent)
            made.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: made.recv(4096), b""))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(WELL)
    yield made
    made.server.close()
    made.server.close()


def test_the_endpoint_says_how_it_is(server: Server) -> None:
    for health, live, ready in ((WELL, 200, 200), (BUSY, 200, 503), (DEAD, 503, 503)):
        server.health = health
        assert server.ask("/live")[0] == live
        status, body = server.ask("/ready?verbose")
        assert (status, body["reasons"]) == (ready, list(health.reasons))
        status, body = server.ask("/")
        assert (status, body["ready"], body["processes"][0]["pid"]) == (200, health.ready, 1)
    assert server.ask("/ready", "HEAD") == (503, None)


def test_what_it_does_not_know_is_said(server: Server) -> None:
    assert server.ask("/nothing") == (404, {"error": "there are /live, /ready and /"})
    assert server.ask("/ready", "POST")[0] == 405


@pytest.mark.parametrize("sent", [b"", b"GET", b"\x00\xff" * 50, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000])
def test_nonsense_gets_no_answer_and_harms_nobody(server: Server, sent: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # hung up on while still talking
        assert server.raw(sent) == b""
    assert server.ask("/ready")[0] == 200


def test_a_look_that_fails_is_logged_and_the_next_answers(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.health = ValueError("nobody foresaw this")
    with pytest.raises(http.client.BadStatusLine):
        server.ask("/ready")
    assert "nobody foresaw this" in caplog.text
    server.health = WELL
    assert server.ask("/ready")[0] == 200


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:80", ("::1", 80)), ("localhost:0", ("localhost", 0))],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize("text", ["", "8080", ":8080", "localhost", "localhost:", "localhost:http", "localhost:99999"])
def test_impossible_addresses_say_what_to_write(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write host:port"):
        parse_address(text)


def test_a_taken_address_is_a_mistake(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen there"):
        HealthServer(server.server.address, server.look, logger=LOGGER)


def until(what: Callable[[], bool], text: str) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, text
        time.sleep(0.01)


def test_the_ready_file_comes_and_goes(tmp_path: Path) -> None:
    path, healths = tmp_path / "ready", [BUSY]
    path.touch()  # a killed one left it
    file = ReadyFile(path, lambda: healths[-1], logger=LOGGER)
    assert not path.exists()
    file.start()
    healths.append(WELL)
    until(path.exists, "it did not come")
    healths.append(DEAD)
    until(lambda: not path.exists(), "it did not go")
    healths.append(WELL)
    until(path.exists, "it did not come back")
    file.close()
    assert not path.exists()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        ReadyFile(tmp_path / "no" / "such" / "folder", lambda: WELL, logger=LOGGER)


# The line between supervisor and process


def heard(ours: SupervisorEnd) -> threading.Event:
    """Listen; set when the process says that it leaves."""
    leaving = threading.Event()
    ours.listen(leaving.set)
    return leaving


def answering(theirs: socket.socket, look: Callable[[], WorkerHealth]) -> tuple[ProcessEnd, threading.Thread]:
    end = ProcessEnd(theirs)
    thread = threading.Thread(target=end.answer_until_alone, args=(look,), daemon=True)
    thread.start()
    return end, thread


def test_the_supervisor_asks_once_until_it_is_answered() -> None:
    ours, theirs = new_link()
    heard(ours)
    gate, numbers = threading.Event(), iter(range(1, 10))

    def look() -> WorkerHealth:
        number = next(numbers)
        if number == 1:
            gate.wait(30)
        return WorkerHealth(live=True, ready=True, pid=number)

    _, thread = answering(theirs, look)
    for _ in range(3):
        assert ours.ask(0.05) is None
    gate.set()
    for number in (1, 2, 3):  # the questions that nobody waited for were not put
        answer = ours.ask(30)
        assert answer is not None
        assert answer.pid == number
    ours.close()
    ours.close()
    thread.join(30)
    assert not thread.is_alive()
    assert ours.ask(1) is None
    theirs.close()


def test_a_process_says_that_it_leaves_and_still_answers() -> None:
    ours, theirs = new_link()
    leaving = heard(ours)
    end, _ = answering(theirs, lambda: WELL.processes[0])
    assert ours.ask(30) == WELL.processes[0]
    assert not leaving.is_set()
    assert end.leave()
    assert leaving.wait(30)
    assert ours.ask(30) == WELL.processes[0]
    ours.close()
    theirs.close()
    assert not end.leave()


def test_a_process_that_is_gone_gives_no_answer() -> None:
    ours, theirs = new_link()
    heard(ours)
    theirs.close()
    assert ours.ask(30) is None
    ours.heard_all(30)
    ours.close()


# A real worker


async def test_a_worker_is_ready_quiet_and_stopping(broker_url: str) -> None:
    health = ProcessHealth()
    assert health.look().reasons == ("it has not started yet",)
    async with Camora(broker_url, queues=["mail"]) as app:
        async with app.worker() as worker:
            health.attach(worker)
            found = await asyncio.to_thread(health.look)
            assert (found.live, found.ready, found.state, found.queues) == (True, True, "running", ("default", "mail"))
            worker.quiet()
            found = await asyncio.to_thread(health.look)
            assert (found.live, found.ready, found.reasons) == (True, False, ("it was told to take nothing more",))
            worker.resume()
            assert (await asyncio.to_thread(health.look)).ready
        found = await asyncio.to_thread(health.look)
        assert (found.ready, found.reasons) == (False, ("it is stopping",))


async def test_a_blocked_loop_is_reported_by_name_and_not_waited_for() -> None:
    health, blocked, release = ProcessHealth(), threading.Event(), threading.Event()
    app = Camora("memory://")

    @app.task(name="greedy")
    async def greedy() -> None:
        blocked.set()
        release.wait(60)

    def look() -> WorkerHealth:
        blocked.wait(60)
        try:
            return health.look()
        finally:
            release.set()

    async with app, app.worker(settings=WorkerSettings(blocked_after=60)) as worker:
        health.attach(worker)
        job = await greedy.dispatch()
        found = await asyncio.to_thread(look)
        assert (found.live, found.ready) == (False, False)
        assert found.reasons == (f"the event loop is blocked by greedy {job.id}",)
        await job.result(60)
        assert (await asyncio.to_thread(health.look)).ready


async def test_a_broker_that_falls_silent_is_noticed_and_a_full_worker_is_not_silent() -> None:
    health, release = ProcessHealth(), asyncio.Event()
    app = Camora("memory://")
    runs = asyncio.Event()

    @app.task
    async def hold() -> None:
        runs.set()
        await release.wait()

    async with app, app.worker(concurrency=1) as worker:
        health.attach(worker)
        [lane] = worker._lanes
        worker._had_no_room_at[lane] = lane._taker.polled_at = time.monotonic() - 1000
        found = await asyncio.to_thread(health.look)
        assert (found.live, found.ready) == (True, False)
        assert "the broker has not answered for 1000 s" in found.reasons
        job = await hold.dispatch()
        await runs.wait()
        lane._taker.polled_at = time.monotonic() - 1000
        assert (await asyncio.to_thread(health.look)).ready
        release.set()
        await job.result(60)
        assert (await asyncio.to_thread(health.look)).ready
