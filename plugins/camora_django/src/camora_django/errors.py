"""What is raised for settings that cannot be."""

from __future__ import annotations

from camora.errors import ConfigurationError
from django.core.exceptions import ImproperlyConfigured

__all__ = ["WrongSettings"]


class WrongSettings(ConfigurationError, ImproperlyConfigured):
    """`settings.CAMORA` cannot be used: Camora's error and Django's in one."""
