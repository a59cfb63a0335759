"""The emulator as tests have it: a private process, with a control of what goes wrong in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.ports import free_port
from tests.servers.process import ServerFailed, ServerProcess
from tests.servers.tls import Certificates, new_certificates

__all__ = ["ServiceBusServer", "need"]

_ROOT = Path(__file__).resolve().parents[3]
_KEY_NAME = "RootManageSharedAccessKey"


def need() -> None:
    """Nothing is needed: the emulator is always there."""


class ServiceBusServer(ServerProcess):
    """A namespace of its own port. Its entities, messages and locks outlive a kill; so do its events.

    With `tls` its port speaks TLS alone: name it by `fully_qualified_namespace` and `endpoint`, not by a connection
    string, since one for an emulator means plain TCP. `options` are those of `service.Options`. Entities that are
    created without a `lock_duration` get `lock_seconds`.
    """

    in_use = "address already in use"

    def __init__(self, *, lock_seconds: float = 60.0, tls: bool = False, **options: Any) -> None:
        super().__init__()
        self.certificates: Certificates | None = new_certificates(self.folder) if tls else None
        self.options = options
        self.lock_seconds = lock_seconds
        self.control_port = 0
        self.key_name = _KEY_NAME
        self.key = os.urandom(24).hex()
        self._paused = False

    # --- the process

    def prepare(self) -> None:
        self.control_port = free_port()

    def command(self) -> Sequence[str]:
        return [
            sys.executable, "-m", "tests.servers.servicebus", "--folder", str(self.folder), "--port", str(self.port),
            "--control-port", str(self.control_port), "--options", json.dumps(self.options),
            "--keys", json.dumps({self.key_name: self.key}), *self._certificate(),
        ]  # fmt: skip

    def _certificate(self) -> Sequence[str]:
        if self.certificates is None:
            return ()
        shown = self.certificates
        return ("--certificate", str(shown.server_certificate), "--certificate-key", str(shown.server_key))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(_ROOT)}

    def answers(self) -> bool:
        try:
            return self.ask("ping") == "pong"
        except OSError:
            return False

    def pause(self) -> None:
        super().pause()
        self._paused = True

    def resume(self) -> None:
        super().resume()
        self._paused = False

    def end(self, number: signal.Signals) -> None:
        super().end(number)
        self._paused = False

    def restart(self) -> None:
        """Kill it, if it runs, and start it again on the same ports and with what it had stored."""
        if self.running():
            self.kill()
        self.start()

    # --- where it is

    @property
    def fully_qualified_namespace(self) -> str:
        """Host and port, as clients name the namespace."""
        return f"{self.host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """The same as a URL, as `custom_endpoint_address` takes it."""
        return f"sb://{self.host}:{self.port}"

    @property
    def connection_string(self) -> str:
        """For the clients, over plain TCP."""
        return self.connection_string_of()

    def connection_string_of(self, *, port: int | None = None, key: str | None = None, entity: str = "") -> str:
        """The same, perhaps by way of a proxy's port, with another key, or for one entity."""
        path = f";EntityPath={entity}" if entity else ""
        return (
            f"Endpoint=sb://{self.host}:{port or self.port};SharedAccessKeyName={self.key_name};"
            f"SharedAccessKey={key or self.key};UseDevelopmentEmulator=true{path}"
        )

    # --- what it is told

    def ask(self, do: str, **fields: Any) -> Any:
        """One command. Raises `OSError` if it is not there, `ServerFailed` if it refuses."""
        with socket.create_connection((self.host, self.control_port), timeout=30) as connection:
            connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        if not line:
            raise ConnectionResetError("the emulator's control ended without an answer")
        answer = json.loads(line)
        if "error" in answer:
            raise ServerFailed(f"the emulator refuses {do}: {answer['error']}")
        return answer["ok"]

    def create_queue(self, name: str, **options: Any) -> str:
        """Make a queue, with the fields of `entities.QueueOptions`; its name."""
        self.ask("create", kind="queue", name=name, **{"lock_duration": self.lock_seconds, **options})
        return name

    def create_topic(self, name: str, **options: Any) -> str:
        """Make a topic, with the fields of `entities.TopicOptions`; its name."""
        self.ask("create", kind="topic", name=name, **options)
        return name

    def create_subscription(self, topic: str, name: str, **options: Any) -> str:
        """Make a subscription, with the fields of `entities.SubscriptionOptions`; its path."""
        options = {"lock_duration": self.lock_seconds, **options}
        self.ask("create", kind="subscription", name=name, topic=topic, **options)
        return f"{topic}/Subscriptions/{name}"

    def update_queue(self, name: str, **options: Any) -> None:
        """Change some options of a queue: `status="Disabled"`."""
        self.ask("update", kind="queue", name=name, **options)

    def delete_queue(self, name: str) -> None:
        """Delete a queue with its messages."""
        self.ask("delete", kind="queue", name=name)

    def counts(self, path: str) -> dict[str, int]:
        """How many messages an entity has: active, dead, scheduled, deferred."""
        return self.ask("counts", path=path)

    def messages(self, path: str) -> list[dict[str, Any]]:
        """An entity's messages, oldest first, without their bodies."""
        return self.ask("messages", path=path)

    def fault(self, kind: str, entity: str | None = None, *, times: int | None = None, **fields: Any) -> None:
        """Let something go wrong: see `faults.KINDS` and `faults.Fault`."""
        self.ask("fault", kind=kind, entity=entity, times=times, **fields)

    def clear(self, kind: str | None = None) -> None:
        """Let nothing more go wrong, or nothing of this kind."""
        self.ask("clear", kind=kind)

    def cut(self, entity: str | None = None) -> int:
        """Reset connections, all or those with a link to an entity; how many."""
        return self.ask("cut", entity=entity)

    def detach(self, entity: str | None = None, condition: str = "amqp:link:detach-forced") -> int:
        """Detach links, all or those to an entity; how many."""
        return self.ask("detach", entity=entity, condition=condition)

    def expire_locks(self, entity: str | None = None) -> int:
        """Let locks lapse now, all or those in an entity; how many messages were locked."""
        return self.ask("expire_locks", entity=entity)

    def outage(self, seconds: float | None = None) -> None:
        """Cut all connections and refuse new ones, for so long or until `clear`."""
        self.fault("outage", seconds=seconds)

    def mute(self, seconds: float | None = None, *, entity: str | None = None) -> None:
        """Answer nothing on any connection, for so long or until `clear`.

        Of an entity: on those connections that have a link to it now.
        """
        self.fault("mute", entity, seconds=seconds)

    def connections(self) -> list[dict[str, Any]]:
        """Who is connected, and with which links."""
        return self.ask("connections")

    def events(self, *kinds: str, entity: str | None = None) -> list[dict[str, Any]]:
        """What happened so far, in order, before a kill too: all, or of some kinds, or in an entity.

        Of messages: stored, duplicate, scheduled, due, cancelled, locked, renewed, lapsed, completed, abandoned,
        released, deferred, dead_lettered, expired, taken. Of sessions: session_accepted, session_renewed,
        session_state, session_lapsed. Of the wire: started, attaching, session_attached, detach, cut, lost,
        kept_silent. Each has `event` and `at`; of messages also `entity`, `sequence`, `message_id`, `session`,
        `delivery_count` and, where there is a lock, `token`.
        """
        if self.running() and not self._paused:
            with contextlib.suppress(OSError):  # starting: the file has what was answered before
                self.ask("ping")  # all is in the file then
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return [
            event
            for event in found
            if (not kinds or event["event"] in kinds) and (entity is None or event.get("entity") == entity)
        ]
