"""The command line."""

from camora.cli.main import main

__all__ = ["main"]
