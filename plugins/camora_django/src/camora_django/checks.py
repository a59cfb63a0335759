"""What `manage.py check` says of the set-up."""

from __future__ import annotations

import sys
from typing import Any

import django
from django.apps import apps
from django.core import checks

from camora_django.backends import task_backends_of_settings

__all__ = ["check_app", "check_tasks_interface"]

_BACKPORT = "django_tasks"


@checks.register("camora")
def check_app(**options: Any) -> list[checks.CheckMessage]:
    """Whether settings.CAMORA makes an app. No I/O."""
    del options
    import camora_django
    from camora_django.refusing import RefusingBroker

    broker = camora_django.app.broker
    return [checks.Error(str(broker.error), id="camora.E001")] if isinstance(broker, RefusingBroker) else []


@checks.register("camora")
def check_tasks_interface(**options: Any) -> list[checks.CheckMessage]:
    """Whether the backends of settings.TASKS can be imported, and where Django has no tasks yet, its backport is there.

    What is wrong with a backend's own settings, its own check says.
    """
    del options
    found: list[checks.CheckMessage] = []
    for alias, kind in task_backends_of_settings().items():
        where = f"TASKS[{alias!r}]"
        if isinstance(kind, ImportError):
            found.append(checks.Error(f"{where}: {kind}", id="camora.E005"))
        elif django.VERSION < (6,) and _is_ours(kind) and not apps.is_installed(_BACKPORT):
            text = (
                f'{where}: CamoraBackend needs "{_BACKPORT}" in INSTALLED_APPS before Django 6: its checks and signals.'
            )
            found.append(checks.Error(text, id="camora.E006"))
    return found


def _is_ours(kind: type) -> bool:
    ours = sys.modules.get("camora_django.tasks")  # whoever derives from it has imported it
    return ours is not None and issubclass(kind, ours.CamoraBackend)
