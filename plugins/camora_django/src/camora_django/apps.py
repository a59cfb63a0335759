"""What INSTALLED_APPS names."""

from __future__ import annotations

import sys
from importlib import import_module

from django.apps import AppConfig, apps
from django.conf import settings
from django.utils.module_loading import import_string, module_has_submodule

__all__ = ["CamoraConfig"]


class CamoraConfig(AppConfig):
    """Imports the module `tasks` of every installed app, so that each process knows all tasks."""

    name = "camora_django"
    verbose_name = "Camora"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Look for tasks, and register the checks."""
        from camora_django import checks  # noqa: F401 -- registers them

        for config in apps.get_app_configs():
            # Ours has a module of this name for another purpose.
            if config is not self and config.module is not None and module_has_submodule(config.module, "tasks"):
                import_module(f"{config.name}.tasks")
        _serve_tasks_interface()


def _serve_tasks_interface() -> None:
    """Let workers run Django's own tasks, where settings.TASKS gives them to Camora."""
    given = getattr(settings, "TASKS", None) or {}
    for params in given.values():
        import_string(params["BACKEND"])
    if "camora_django.tasks" not in sys.modules:
        return  # nobody names it, or has derived from it
    import camora_django
    from camora_django.interface import task_backends
    from camora_django.running import register
    from camora_django.tasks import CamoraBackend

    register(camora_django.app)
    for alias in given:
        backend = task_backends[alias]
        if isinstance(backend, CamoraBackend) and isinstance(camora_django.app, camora_django.DjangoCamora):
            camora_django.app.serve(backend.queues)
