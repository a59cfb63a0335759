"""What stands for the broker where `settings.CAMORA` cannot be used.

Django imports modules of tasks while it starts, and its checks speak only after that. So wrong settings still make an
app, to which tasks can be added; whoever uses it is told what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Self

from camora.interfaces import Broker, Consumer, ConsumerSettings
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.queues import Queues
from camora.message import Envelope
from camora_sql.broker import SqlBroker

from camora_django.errors import WrongSettings

__all__ = ["RefusingBroker"]


class RefusingBroker(Broker):
    """Raises this error, whatever it is used for; `twin` and `close` do nothing."""

    capabilities = SqlBroker.capabilities  # so that nothing else is complained about first

    def __init__(self, error: WrongSettings) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"RefusingBroker({str(self.error)!r})"

    def _refuse(self) -> NoReturn:
        raise WrongSettings(str(self.error))  # each time another one: each gets a traceback of its own

    async def open(self) -> None:
        """Raises."""
        self._refuse()

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Raises."""
        self._refuse()

    async def publish_within(self, connection: Any, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Raises."""
        self._refuse()

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """Raises."""
        self._refuse()

    @property
    def queues(self) -> Queues:
        """Raises."""
        self._refuse()

    @property
    def dead_letters(self) -> DeadLetters:
        """Raises."""
        self._refuse()

    def twin(self) -> Self:
        """It has no connections."""
        return self

    async def close(self) -> None:
        """There is nothing to close."""
