"""What the checks look at a namespace with: the wire, and the management interface as far as we may use it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from camora.errors import BrokerUnavailable
from camora.interfaces import CheckResult

from camora_servicebus import internals
from camora_servicebus.admin import Admin, Counts
from camora_servicebus.admin_errors import NotAllowed
from camora_servicebus.client import Connector
from camora_servicebus.differences import Wanted
from camora_servicebus.handles import Handles
from camora_servicebus.publishing import Publisher
from camora_servicebus.store import Store
from camora_servicebus.wanting import wanted_of_app

__all__ = ["Look", "Unseen"]

T = TypeVar("T")


class Unseen(Exception):
    """The management interface shows us nothing; the text says why: `without the right to manage`."""


class Look:
    """Belongs to one event loop; close it. Nothing is changed by it, and no job is taken."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.store: Store = app.broker.database
        self.wanted: Sequence[Wanted] = wanted_of_app(app)
        self.receiving = [one for one in self.wanted if one.kind != "topic"]
        """Of what is wanted, what workers take jobs from."""
        self._admin = Admin(self.store)
        self._handles = Handles(self.store, f"{self.store.label}: camora doctor")
        self._connector = Connector(self.store)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._admin.close()
        await self._handles.close()
        await self._connector.close()

    # What it says

    def fine(self, text: str, advice: str = "") -> CheckResult:
        """It is as it should be."""
        return CheckResult(ok=True, text=f"{self.store.label}: {text}", fix=advice)

    def failed(self, text: str, fix: str) -> CheckResult:
        """It is not."""
        return CheckResult(ok=False, text=f"{self.store.label}: {text}", fix=fix)

    # What it asks

    async def let_in(self) -> None:
        """Connect and show the credentials. Raises `BrokerUnavailable` or `ConfigurationError`."""
        publisher = Publisher(self._connector, self.store.label)
        try:
            # A key may be for one queue alone.
            await publisher.open(self.store.address.entity or self.wanted[0].entity)
        finally:
            await publisher.close()

    async def find(self, one: Wanted) -> dict[str, Any] | None:
        """The properties of an entity; None where it is not there. Raises `Unseen`, or what else goes wrong."""
        return await self._seen(self._admin.find(one.kind, one.path))

    async def counts(self, one: Wanted) -> Counts | None:
        """How much it holds. Raises `Unseen`."""
        return await self._seen(self._admin.counts(one.kind, one.path))

    async def tier(self) -> str:
        """Of the namespace. Raises `Unseen`."""
        return (await self._seen(self._admin.namespace())).tier

    async def _seen(self, asking: Awaitable[T]) -> T:
        try:
            return await asking
        except NotAllowed as error:
            raise Unseen("without the right to manage") from error
        except BrokerUnavailable as error:
            # Workers do without it: who comes through by AMQP need not come through by HTTPS.
            why = str(error).removeprefix(f"{self.store.label}: ")
            raise Unseen(f"because the management interface is not reached ({why})") from error

    async def largest(self, entity: str) -> int:
        """The largest message that an entity takes, in bytes. Raises `NoEntity`, or what else goes wrong."""

        async def ask(sender: Any) -> int:
            batch = await sender.create_message_batch()
            return internals.largest_message(sender) or int(batch.max_size_in_bytes)

        return await self._handles.use("send", entity, ask)

    async def receivable(self, entity: str) -> None:
        """Look for a dead letter, which asks for the same right as receiving and takes no job."""

        async def ask(receiver: Any) -> None:
            await receiver.peek_messages(1, timeout=self._handles.timeout)

        await self._handles.use("dead", entity, ask)
