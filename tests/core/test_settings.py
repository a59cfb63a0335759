"""Settings: strict, every mistake at once; and URLs without their secrets."""

from __future__ import annotations

import pytest
from camora.errors import SettingsError
from camora.settings import WorkerSettings, mask_url


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
