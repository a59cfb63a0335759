"""`camora servicebus apply`, as a process of its own: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.managing import Management, management

__all__ = ["management"]  # a fixture

SHOP = """
app = "shop:app"

[broker]
url = "{url}"

[queues.mail]
kind = "servicebus"
lock_duration = "30s"
duplicate_detection = "10m"

[queues.reports]
concurrency = 2
"""

TASKS = """
from camora import Camora

app = Camora.from_toml()

@app.task(queue="mail")
async def send() -> None: ...
"""


class Shop:
    """A small project, and its commands, each in a process of its own."""

    def __init__(self, folder: Path, management: Management) -> None:
        self.folder = folder
        self.environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
        self.url = management.url(prefix="shop-")
        (folder / "shop.py").write_text(TASKS, encoding="utf-8")
        self.toml(SHOP.format(url=self.url))

    def toml(self, text: str) -> None:
        (self.folder / "camora.toml").write_text(text, encoding="utf-8")

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self._start("servicebus", *words)

    def _start(self, *words: str) -> subprocess.Popen[str]:
        return forked.Popen(
            [sys.executable, "-m", "camora", *words],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def camora(self, *words: str, code: int = 0) -> str:
        """What `camora servicebus …` writes; it must end with this code, and never with a traceback or a secret."""
        return self.run("servicebus", *words, code=code)

    def run(self, *words: str, code: int = 0) -> str:
        """The same of another command."""
        with self._start(*words) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out}{err}"
        assert "Traceback" not in err
        assert "hunter2" not in out + err
        return out + err

    def json(self, *words: str, code: int = 0) -> Any:
        text = self.camora(*words, "--json", code=code)
        return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]


@pytest.fixture
def shop(tmp_path: Path, management: Management) -> Shop:
    return Shop(tmp_path, management)


def test_a_diff_first_then_it_is_done_and_then_there_is_nothing_to_do(shop: Shop, management: Management) -> None:
    planned = shop.camora("apply", "--dry-run", code=1)
    assert planned == (
        "servicebus://127.0.0.1:1 (standard)\n"
        "+ queue default (shop-default)\n"
        "    lock_duration: 1m\n    max_delivery_count: 20\n    sessions: no\n    dead_letter_expired: yes\n"
        "+ queue mail (shop-mail)\n"
        "    lock_duration: 30s\n    max_delivery_count: 20\n    sessions: no\n    duplicate_detection: 10m\n"
        "    dead_letter_expired: yes\n"
        "+ queue reports (shop-reports)\n"
        "    lock_duration: 1m\n    max_delivery_count: 20\n    sessions: no\n    dead_letter_expired: yes\n"
        "3 to make\n"
    )
    assert management.names() == []
    done = shop.camora("apply")
    assert done == planned.replace(
        "3 to make\n",
        "queue default (shop-default): made\nqueue mail (shop-mail): made\n"
        "queue reports (shop-reports): made\n3 made\n",
    )
    assert management.names() == ["shop-default", "shop-mail", "shop-reports"]
    for words in (("apply",), ("apply", "--dry-run")):
        assert shop.camora(*words) == (
            "servicebus://127.0.0.1:1 (standard)\n"
            "  queue default (shop-default): as declared\n"
            "  queue mail (shop-mail): as declared\n"
            "  queue reports (shop-reports): as declared\n"
            "3 as declared\n"
        )


def test_what_differs_is_shown_with_both_sides_and_changed(shop: Shop, management: Management) -> None:
    shop.camora("apply")
    shop.toml(SHOP.format(url=shop.url).replace('"30s"', '"45s"').replace('"10m"', '"1h"'))
    text = shop.camora("apply")
    assert "~ queue mail (shop-mail)\n    lock_duration: 30s → 45s\n    duplicate_detection: 10m → 1h\n" in text
    assert text.endswith("queue mail (shop-mail): changed\n1 changed, 2 as declared\n")
    assert management.options("shop-mail").lock_duration == 45.0


def test_what_cannot_be_changed_ends_with_2_and_nothing_is_done(shop: Shop, management: Management) -> None:
    management.create("shop-mail")
    for words in (("apply",), ("apply", "--dry-run")):
        text = shop.camora(*words, code=2)
        assert (
            "! queue mail (shop-mail)\n    lock_duration: 1m → 30s\n"
            "    duplicate_detection: none → 10m (cannot be changed)\n" in text
        )
        assert "camora: servicebus://127.0.0.1:1: nothing was changed, because this cannot be:" in text
        assert "duplicate_detection is 'none' on the service, and '10m' here" in text
        assert management.names() == ["shop-mail"]


def test_as_json(shop: Shop, management: Management) -> None:
    management.create("shop-default", max_delivery_count=3)
    planned = shop.json("apply", "--dry-run", code=1)
    assert {name: value for name, value in planned.items() if name != "entities"} == {
        "ok": True, "namespace": "servicebus://127.0.0.1:1", "tier": "standard", "dry_run": True,
    }  # fmt: skip
    mail = planned["entities"][1]
    assert {**mail, "differences": mail["differences"][:1]} == {
        "kind": "queue", "name": "mail", "entity": "shop-mail", "action": "create", "done": False,
        "differences": [{"property": "lock_duration", "before": None, "after": "30s"}],
    }  # fmt: skip
    done = shop.json("apply")
    assert {one["name"]: (one["action"], one["done"]) for one in done["entities"]} == {
        "default": ("same", False), "mail": ("create", True), "reports": ("create", True),
    }  # fmt: skip


def test_what_fails_half_way_is_said_and_a_repetition_ends_it(shop: Shop, management: Management) -> None:
    management.before(lambda: management.refuse(403, "There are enough queues.", method="PUT"))
    text = shop.camora("apply", code=2)
    assert "queue default (shop-default): made\n" in text
    assert "camora: 1 of 3 were done; run it again, and it goes on from there\n" in text
    assert "make queue 'shop-mail'" in text
    management.before(lambda: management.refuse(403, "There are enough queues.", method="PUT"))
    assert [one["done"] for one in shop.json("apply", code=2)["entities"]] == [False, True, False]
    assert shop.camora("apply").endswith("queue reports (shop-reports): made\n1 made, 2 as declared\n")


def test_killed_half_way_and_run_again(shop: Shop, management: Management) -> None:
    """The first queue is made, and whoever made it dies before the second one."""
    reached = threading.Event()
    ended = threading.Event()

    def wait() -> None:
        reached.set()
        assert ended.wait(60)

    management.before(lambda: management.before(wait))
    process = shop.start("apply")
    assert reached.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    ended.set()
    text = shop.camora("apply")
    assert text.endswith("as declared\n")
    assert management.names() == ["shop-default", "shop-mail", "shop-reports"]
    assert management.options("shop-mail").requires_duplicate_detection
    assert shop.camora("apply").endswith("3 as declared\n")


def test_two_at_once(shop: Shop, management: Management) -> None:
    processes = [shop.start("apply") for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    assert management.names() == ["shop-default", "shop-mail", "shop-reports"]


def test_nobody_there_and_nobody_who_may(shop: Shop, management: Management) -> None:
    shop.toml(SHOP.format(url=management.url(management="127.0.0.1:1")))
    text = shop.camora("apply", code=1)
    assert text == (
        "camora: servicebus://127.0.0.1:1: cannot look at the namespace: no connection to the management interface at "
        "127.0.0.1:1 comes about: Connection refused. Open the way there, or say where it is: management=HOST:PORT\n"
    )
    shop.toml(SHOP.format(url=management.url("clerk")))
    text = shop.camora("apply", code=2)
    assert "these credentials have no right to manage: Manage,EntityRead claims required" in text


def test_an_app_without_service_bus(shop: Shop) -> None:
    shop.toml('[broker]\nurl = "memory://"\n')
    text = shop.camora("apply", code=2)
    assert "has no queues in Azure Service Bus: its broker is" in text


def test_from_nothing_to_a_worker(shop: Shop) -> None:
    """On the whole emulator: what is applied can be worked with, and the doctor has nothing to say against it."""
    with ServiceBusServer() as server:
        place = f"127.0.0.1:{server.port}"
        url = f"servicebus://{server.key_name}:{server.key}@{place}?emulator=true&management={place}"
        shop.toml(SHOP.format(url=url).replace('"30s"', '"45s"'))
        assert "not there: default, mail, reports" in shop.run("doctor", code=1)
        shop.run("servicebus", "apply")
        job = shop.run("dispatch", "shop:send").strip()
        assert "mail (lock 45s, 20 deliveries, no sessions, duplicates known for 10m, 1 waiting)" in shop.run("doctor")
        assert "it settled 1 job" in shop.run("worker", "--burst")
        assert len(server.events("completed", entity="mail")) == 1, job
        server.restart()
        assert shop.run("servicebus", "apply").endswith("3 as declared\n")


def test_help() -> None:
    for words in ((), ("apply",)):
        ended = forked.run(
            [sys.executable, "-m", "camora", "servicebus", *words, "--help"], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0
        assert "apply" in ended.stdout
