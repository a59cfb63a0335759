"""Settings: strict, every mistake at once; and URLs without their secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from camora.errors import SettingsError
from camora.settings import AppSettings, WorkerSettings, mask_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:p@ss@host", "redis://:***@host"),
        ("sqlite:////var/lib/camora.db", "sqlite:////var/lib/camora.db"),
        ("sqlite:///camora.db?busy_timeout=3", "sqlite:///camora.db?busy_timeout=3"),
        ("servicebus://host/?SharedAccessKey=abc&x=1", "servicebus://host/?SharedAccessKey=***&x=1"),
        ("memory://", "memory://"),
    ],
)
def test_secrets_of_urls_are_masked(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_settings_from_the_environment_report_every_mistake_at_once() -> None:
    environ = {"CAMORA_WORKER__LEESE": "3", "CAMORA_WORKER__CONCURRENCY": "many", "CAMORA_WORKER__LEASE": "2.5"}
    with pytest.raises(SettingsError) as error:
        WorkerSettings.from_environment(environ)
    assert len(error.value.problems) == 2
    assert "unknown setting 'leese': did you mean 'lease'?" in str(error.value)
    assert "concurrency: expected a whole number, found 'many'" in str(error.value)
    assert WorkerSettings.from_environment({"CAMORA_WORKER__LEASE": "2.5"}).lease == 2.5


def test_the_mistakes_of_an_environment_come_in_the_order_of_the_fields() -> None:
    environ = {"CAMORA_WORKER__PREFETCH": "-1", "CAMORA_WORKER__LEASE": "0", "CAMORA_WORKER__CONCURRENCY": "0"}
    with pytest.raises(SettingsError) as error:
        WorkerSettings.from_environment(environ)
    assert error.value.problems == (
        "worker: concurrency: must be more than 0, found '0'",
        "worker: prefetch: must be 0 or more, found '-1'",
        "worker: lease: must be more than 0, found '0'",
    )


@pytest.mark.parametrize(
    ("cls", "given", "text"),
    [
        (WorkerSettings, {"processes": "two"}, "processes = 'two': expected a whole number"),
        (WorkerSettings, {"processes": True}, "processes = True: expected a whole number"),
        (WorkerSettings, {"processes": None}, "processes = None: expected a whole number"),
        (WorkerSettings, {"concurrency": 0}, "concurrency = 0: must be more than 0"),
        (WorkerSettings, {"concurrency": 1.5}, "concurrency = 1.5: expected a whole number"),
        (WorkerSettings, {"prefetch": -1}, "prefetch = -1: must be 0 or more"),
        (WorkerSettings, {"prefetch": "3"}, "prefetch = '3': expected a whole number"),
        (WorkerSettings, {"lease": "soon"}, "lease = 'soon': expected a duration such as \"30s\""),
        (WorkerSettings, {"lease": None}, 'lease = None: expected a duration such as "30s"'),
        (WorkerSettings, {"lease": float("nan")}, "lease = nan: must be more than 0"),
        (WorkerSettings, {"shutdown_timeout": float("inf")}, "shutdown_timeout = inf: must be more than 0"),
        (WorkerSettings, {"max_jobs": 0}, "max_jobs = 0: must be more than 0"),
        (WorkerSettings, {"max_memory": []}, 'max_memory = []: expected a size such as "10MB"'),
        (AppSettings, {"max_message_size": "big"}, "max_message_size = 'big': expected a size such as \"10MB\""),
        (AppSettings, {"result_ttl": b"1d"}, "result_ttl = b'1d': expected a duration such as \"30s\""),
    ],
    ids=str,
)
def test_settings_made_by_hand_name_the_field_that_is_wrong(cls: Any, given: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as error:
        cls(**given)
    assert str(error.value) == text
    assert error.value.problems == (text,)


def test_settings_made_by_hand_may_have_units() -> None:
    made = WorkerSettings(lease=timedelta(minutes=1), shutdown_timeout="1m30s", max_memory="1GiB", prefetch=0)
    assert (made.lease, made.shutdown_timeout, made.max_memory, made.prefetch) == (60.0, 90.0, 1024**3, 0)
    assert AppSettings(max_message_size="10MB", result_ttl=5).max_message_size == 10_000_000
