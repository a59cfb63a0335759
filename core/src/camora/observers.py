"""The observers that come with Camora, and what belongs to them. Making one's own: `camora.interfaces.Observer`."""

from camora.builtin.observers.json_lines import JsonFormatter
from camora.builtin.observers.logging import LoggingObserver, LoggingSettings, configure_logging
from camora.builtin.observers.memory import MemoryObserver

__all__ = ["JsonFormatter", "LoggingObserver", "LoggingSettings", "MemoryObserver", "configure_logging"]
