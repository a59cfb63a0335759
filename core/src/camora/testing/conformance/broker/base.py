"""The fixtures of a broker's exam."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from camora.interfaces.broker import Broker
from camora.interfaces.results import ResultBackend
from camora.testing.conformance.broker.rig import Rig

__all__ = ["BrokerSuite"]


@pytest.mark.asyncio
class BrokerSuite:
    """Override `broker_factory`, and `results_for` where the broker's settlements write results."""

    lease: float = 0.5
    """Seconds of the leases that tests let lapse: as short as the store can do reliably."""
    patience: float = 20.0
    """Seconds after which a message that has not come is taken for lost."""
    prompt: float = 2.0
    """Seconds within which a waiting `receive` must notice a publication by somebody else."""
    refunds: bool = True
    """Whether an uncharged release takes its delivery off the count. Not every server can."""

    @pytest.fixture
    def broker_factory(self) -> Callable[[], Broker]:
        """Makes an unopened broker on an empty store of its own, each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture broker_factory")

    def results_for(self, broker: Broker) -> ResultBackend | None:
        """An unopened result backend that this broker settles into; None when it has none."""
        return None

    @pytest_asyncio.fixture
    async def rig(self, broker_factory: Callable[[], Broker]) -> AsyncIterator[Rig]:
        """The broker under test, open, with its results."""
        broker = broker_factory()
        await broker.open()
        results = self.results_for(broker)
        if results is not None:
            await results.open()
        rig = Rig(broker, results, lease=self.lease, patience=self.patience)
        try:
            yield rig
        finally:
            await rig.close()
            if results is not None:
                await results.close()
            await broker.close()
