"""Conditions that are settled inside the plugin."""

from __future__ import annotations

from camora.errors import BrokerUnavailable

__all__ = ["CommitUnclear", "Garbled"]


class Garbled(Exception):
    """The driver could not read a value of a row."""


class CommitUnclear(BrokerUnavailable):
    """The commit failed in a way that leaves open whether it happened."""
