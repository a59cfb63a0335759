"""Settings from `camora.toml`, or `[tool.camora]` of `pyproject.toml`, and from the environment."""

from __future__ import annotations

from camora.config.arguments import app_arguments
from camora.config.configuration import Configuration
from camora.config.files import find
from camora.config.loading import read, read_mapping

__all__ = ["Configuration", "app_arguments", "find", "read", "read_mapping"]
