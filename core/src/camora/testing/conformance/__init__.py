"""The exam of every broker, result backend, codec and pool: Camora's own, and yours.

Subclass a suite in a test module, override its factory, and pytest does the rest:

```python
class TestNats(BrokerConformance):
    lease = 1.0

    @pytest.fixture
    def broker_factory(self, tmp_path):
        return lambda: NatsBroker(f"nats://localhost:4222/{uuid4().hex}")
```

Needs pytest, pytest-asyncio and hypothesis. What a broker declares as unsupported is not tested, but that it refuses
is. Lease times and patience are class attributes: raise them for a slow server, never the suites' expectations.
"""

from __future__ import annotations

import pytest

# Before the suites are imported: their asserts must explain themselves in a stranger's test run, too.
pytest.register_assert_rewrite(
    *[
        f"{__name__}.{part}"
        for part in (
            "broker",
            "codec",
            "hunter",
            "journal_machine",
            "journals",
            "limits",
            "machine",
            "model",
            "pool",
            "results",
            "schedules",
            "workers",
            "workflow_machine",
            "workflows",
        )
    ]
)

from camora.testing.conformance.broker import BrokerConformance  # noqa: E402
from camora.testing.conformance.codec import CodecConformance  # noqa: E402
from camora.testing.conformance.hunter import Subject  # noqa: E402
from camora.testing.conformance.journal_machine import hunt_journals  # noqa: E402
from camora.testing.conformance.journals import JournalConformance  # noqa: E402
from camora.testing.conformance.limits import LimitsConformance  # noqa: E402
from camora.testing.conformance.machine import BrokerMachine, broker_state_machine, hunt  # noqa: E402
from camora.testing.conformance.pool import PoolConformance  # noqa: E402
from camora.testing.conformance.results import ResultBackendConformance  # noqa: E402
from camora.testing.conformance.schedules import ScheduleStoreConformance  # noqa: E402
from camora.testing.conformance.workers import WorkerDirectoryConformance  # noqa: E402
from camora.testing.conformance.workflow_machine import hunt_workflows  # noqa: E402
from camora.testing.conformance.workflows import WorkflowStoreConformance  # noqa: E402

__all__ = [
    "BrokerConformance",
    "BrokerMachine",
    "CodecConformance",
    "JournalConformance",
    "LimitsConformance",
    "PoolConformance",
    "ResultBackendConformance",
    "ScheduleStoreConformance",
    "Subject",
    "WorkerDirectoryConformance",
    "WorkflowStoreConformance",
    "broker_state_machine",
    "hunt",
    "hunt_journals",
    "hunt_workflows",
]
