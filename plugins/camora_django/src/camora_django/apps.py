"""What INSTALLED_APPS names."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

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
