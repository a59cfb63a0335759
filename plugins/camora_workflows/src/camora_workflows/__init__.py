"""Workflows: callbacks, chains, groups, chords, graphs, and tasks that are done in durable steps."""

from typing import TYPE_CHECKING

from camora.lazy import names_of

if TYPE_CHECKING:
    from camora_workflows.compose import Chain, Chord, Graph, Group
    from camora_workflows.composer import workflow
    from camora_workflows.failed_step import FailedStep
    from camora_workflows.handle import Member, WorkflowJob
    from camora_workflows.making import chain, chord, group
    from camora_workflows.settings import WorkflowSettings
    from camora_workflows.signals import wait_for_signal
    from camora_workflows.sleeping import durable_sleep
    from camora_workflows.steps import step

__all__ = [
    "Chain",
    "Chord",
    "FailedStep",
    "Graph",
    "Group",
    "Member",
    "WorkflowJob",
    "WorkflowSettings",
    "chain",
    "chord",
    "durable_sleep",
    "group",
    "step",
    "wait_for_signal",
    "workflow",
]

if not TYPE_CHECKING:
    __getattr__ = names_of(
        __name__,
        {
            "camora_workflows.compose": ("Chain", "Chord", "Graph", "Group"),
            "camora_workflows.composer": ("workflow",),
            "camora_workflows.failed_step": ("FailedStep",),
            "camora_workflows.handle": ("Member", "WorkflowJob"),
            "camora_workflows.making": ("chain", "chord", "group"),
            "camora_workflows.settings": ("WorkflowSettings",),
            "camora_workflows.signals": ("wait_for_signal",),
            "camora_workflows.sleeping": ("durable_sleep",),
            "camora_workflows.steps": ("step",),
        },
    )


def __dir__() -> list[str]:
    return __all__
