"""Why an entrant cannot take part in a scenario, from what the catalog says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["delays", "own_process", "redis", "results", "results_on_redis", "single_workers"]


def own_process(about: Mapping[str, Any]) -> str:
    """The worker is looked at alone."""
    return "one process" if about["in_process"] else ""


def redis(about: Mapping[str, Any]) -> str:
    """The commands that Redis is sent are counted."""
    return "" if about["server"] == "redis" else "not on Redis"


def results(about: Mapping[str, Any]) -> str:
    """Results are looked at."""
    return str(about["lacks"].get("w5", ""))


def results_on_redis(about: Mapping[str, Any]) -> str:
    """Both."""
    return redis(about) or results(about)


def single_workers(about: Mapping[str, Any]) -> str:
    """Two worker processes are compared with one."""
    return own_process(about) or ("its worker has several processes already" if about["forks"] else "")


def delays(about: Mapping[str, Any]) -> str:
    """Jobs for later are stored first."""
    return "" if about["delays"] else "delays no jobs here"
