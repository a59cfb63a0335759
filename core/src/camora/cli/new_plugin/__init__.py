"""`camora new-plugin`: a distribution that works, to be changed into what its author wants."""

from camora.cli.new_plugin.command import new_plugin

__all__ = ["new_plugin"]
