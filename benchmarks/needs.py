"""Why an entrant cannot take part in a scenario, from what the catalog says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "chains",
    "chords",
    "database",
    "delays",
    "own_process",
    "postgresql",
    "requests",
    "requests_and_results",
    "results",
    "single_workers",
]


def own_process(about: Mapping[str, Any]) -> str:
    """The worker is looked at alone."""
    return "one process" if about["in_process"] else ""


def requests(about: Mapping[str, Any]) -> str:
    """What a server is asked is counted."""
    return "" if about["server"] else "has no server"


def database(about: Mapping[str, Any]) -> str:
    """What is in store is in tables, which may be long."""
    return own_process(about) or ("" if about["server"] in ("", "postgresql") else "not in a SQL database")


def postgresql(about: Mapping[str, Any]) -> str:
    """Tables and transactions of PostgreSQL are looked at."""
    return "" if about["server"] == "postgresql" else "not on PostgreSQL"


def results(about: Mapping[str, Any]) -> str:
    """Results are looked at."""
    return str(about["lacks"].get("w5", ""))


def requests_and_results(about: Mapping[str, Any]) -> str:
    """Both."""
    return requests(about) or results(about)


def single_workers(about: Mapping[str, Any]) -> str:
    """Two worker processes are compared with one."""
    return own_process(about) or ("its worker has several processes already" if about["forks"] else "")


def delays(about: Mapping[str, Any]) -> str:
    """Jobs for later are stored first."""
    return "" if about["delays"] else "delays no jobs here"


def chords(about: Mapping[str, Any]) -> str:
    """Something runs when many have run."""
    return own_process(about) or ("" if about["chords"] else "has no chords here")


def chains(about: Mapping[str, Any]) -> str:
    """One runs after the other."""
    return own_process(about) or ("" if about["chains"] else "has no chains here")
