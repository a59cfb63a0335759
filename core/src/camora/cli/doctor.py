"""`camora doctor`."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from camora.cli.codes import FAILED, OK
from camora.cli.common import JsonOption, Where, print_json, say
from camora.cli.examining import Examiner
from camora.errors import CamoraError, ConfigurationError

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.interfaces.operations import Check

__all__ = ["doctor"]

_SIGNS = {"ok": ("✓", "green"), "advice": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("·", "dim")}


@attrs.frozen(kw_only=True)
class Finding:
    """How one check ended: `state` is `ok`, `advice`, `failed` or `skipped`."""

    name: str
    state: str
    text: str
    fix: str = ""


def doctor(
    *,
    timeout: Annotated[float | None, Parameter(help="Seconds for each check, instead of its own.")] = None,
    as_json: JsonOption = False,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> int:
    """Check the whole set-up in order, and say how to mend what fails; exits with 1 when something does.

    Settings, plugins, the app and its tasks, then what the app stands on. Plugins add checks of their own. Nothing is
    changed, and nothing left behind.
    """
    found = []
    for finding in _findings(where, timeout):
        found.append(finding)
        if not as_json:
            _show(finding)
    well = all(finding.state != "failed" for finding in found)
    if as_json:
        print_json({"ok": well, "checks": [attrs.asdict(finding) for finding in found]})
    return OK if well else FAILED


def _show(finding: Finding) -> None:
    sign, style = _SIGNS[finding.state]
    lines = finding.text.splitlines() or [""]
    say(f"{sign} {finding.name}: {lines[0]}", style=style if finding.state != "ok" else None)
    for line in lines[1:]:
        say(f"    {line}")
    if finding.fix:
        say(f"    → {finding.fix}")


def _findings(where: Where, timeout: float | None) -> Iterator[Finding]:
    from camora import plugins

    yield Finding(name="python", state="ok", text=f"{platform.python_version()}, {platform.platform()}")
    try:
        yield _of_plugins(plugins.load())
    except CamoraError as error:
        yield Finding(name="plugins", state="failed", text=str(error), fix="camora plugins")
        return
    try:
        app = where.find()
    except ConfigurationError as error:
        yield Finding(name="app", state="failed", text=str(error), fix="everything else is looked at when this works")
        return
    yield Finding(name="app", state="ok", text=f"{app!r}")
    yield from _examined(
        app, sorted(app.catalog.items["camora_checks"].values(), key=lambda check: check.order), timeout
    )


def _of_plugins(catalog: Any) -> Finding:
    broken = [
        f"{info.name} ({info.distribution} {info.version}): {info.why}"
        for info in catalog.plugins
        if info.state == "broken"
    ]
    if broken:
        return Finding(
            name="plugins", state="failed", text="\n".join(broken), fix="reinstall, or uninstall, each of these"
        )
    names = ", ".join(
        f"{info.name} ({info.state})" if info.state != "active" else info.name for info in catalog.plugins
    )
    return Finding(name="plugins", state="ok", text=names)


def _examined(app: Camora, checks: Sequence[Check], timeout: float | None) -> Iterator[Finding]:
    with Examiner(app) as examiner:
        reached = True
        for check in checks:
            if not reached and check.order > 12:
                yield Finding(name=check.name, state="skipped", text="not looked at: the broker does not answer")
                continue
            result = examiner.run(check, timeout or check.timeout)
            state = "failed" if not result.ok else "advice" if result.fix else "ok"
            yield Finding(name=check.name, state=state, text=result.text, fix=result.fix)
            reached = reached and (result.ok or check.name != "broker")
