"""The schedules of an app: declared in code and settings, or stored at run time."""

from camora.schedules.declared import DeclaredSchedule, DeclaredSchedules
from camora.schedules.described import make_trigger, trigger_text
from camora.schedules.parts import ScheduleParts
from camora.schedules.shown import Schedule
from camora.schedules.stored import Schedules

__all__ = [
    "DeclaredSchedule",
    "DeclaredSchedules",
    "Schedule",
    "ScheduleParts",
    "Schedules",
    "make_trigger",
    "trigger_text",
]
