"""What `settings.TASKS` names."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

__all__ = ["task_backends_of_settings"]


def task_backends_of_settings() -> dict[str, type | ImportError]:
    """The class of each alias, or why it cannot be imported. Empty where the setting is missing."""
    given: dict[str, Any] = getattr(settings, "TASKS", None) or {}
    return {alias: _imported(str(params.get("BACKEND", ""))) for alias, params in given.items()}


def _imported(path: str) -> type | ImportError:
    try:
        found: type = import_string(path)
    except ImportError as error:
        return error
    return found
