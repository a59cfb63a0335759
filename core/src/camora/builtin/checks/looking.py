"""How checks look into an app: it comes as `Any`, for it stands above this layer."""

from __future__ import annotations

from typing import Any

from camora.interfaces.operations import CheckResult

__all__ = ["connection_of", "failed", "fine", "several_processes"]


def fine(text: str, advice: str = "") -> CheckResult:
    """It passed; with `advice`, something could be better."""
    return CheckResult(ok=True, text=text, fix=advice)


def failed(text: str, fix: str) -> CheckResult:
    """It did not pass."""
    return CheckResult(ok=False, text=text, fix=fix)


async def connection_of(app: Any) -> Any:
    """The stores of the app, open in this loop."""
    return await app._connections.get()  # noqa: SLF001 -- one unit with the app


def several_processes(app: Any) -> bool:
    """True when the settings say that more than one worker process runs."""
    return app.worker_settings is not None and app.worker_settings.processes > 1
