"""What INSTALLED_APPS names."""

from __future__ import annotations

import sys
from importlib import import_module

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate
from django.utils.module_loading import module_has_submodule

from camora_django.backends import task_backends_of_settings

__all__ = ["CamoraConfig"]


class CamoraConfig(AppConfig):
    """Imports the module `tasks` of every installed app, so that each process knows all tasks."""

    name = "camora_django"
    verbose_name = "Camora"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Look for tasks, and register the checks."""
        from camora_django import checks  # noqa: F401 -- registers them
        from camora_django.moving import make_tables_where_they_are_meant

        post_migrate.connect(make_tables_where_they_are_meant, sender=self, dispatch_uid="camora_django.tables")

        for config in apps.get_app_configs():
            # Ours has a module of this name for another purpose.
            if config is not self and config.module is not None and module_has_submodule(config.module, "tasks"):
                import_module(f"{config.name}.tasks")
        _serve_tasks_interface()


def _serve_tasks_interface() -> None:
    """Let workers run Django's own tasks, where settings.TASKS gives them to Camora."""
    found = task_backends_of_settings()
    if "camora_django.tasks" not in sys.modules:
        return  # nobody names it, or has derived from it
    import camora_django
    from camora_django.interface import task_backends
    from camora_django.running import register
    from camora_django.tasks import CamoraBackend

    register(camora_django.app)
    for alias, kind in found.items():
        # What cannot be imported, a check tells of.
        ours = isinstance(kind, type) and issubclass(kind, CamoraBackend)
        if ours and isinstance(camora_django.app, camora_django.DjangoCamora):
            camora_django.app.serve(task_backends[alias].queues)
