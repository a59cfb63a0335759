"""`camora doctor`."""

from __future__ import annotations

import difflib
import os
import pkgutil
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Parameter

from camora.cli.codes import FAILED, OK
from camora.cli.common import JsonOption, Where, item, print_json, say, waiting
from camora.cli.examining import Examiner
from camora.errors import CamoraError, ConfigurationError, SettingsError
from camora.masking import masked_error

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.interfaces.operations import Check
    from camora.plugins import Catalog

__all__ = ["doctor"]

_SIGNS = {"ok": ("✓", "green"), "advice": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("·", "dim")}
_GATE = "broker"
"""The check without which only those that are `offline` make sense."""


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
        found.append(attrs.evolve(finding, text=masked_error(finding.text)))
        if not as_json:
            _show(found[-1])
    well = all(finding.state != "failed" for finding in found)
    if as_json:
        print_json({"ok": well, "checks": [attrs.asdict(finding) for finding in found]})
    else:
        say(_summary(found), style="bold")
    return OK if well else FAILED


def _summary(found: Sequence[Finding]) -> str:
    counts = Counter(finding.state for finding in found)
    if not counts["failed"] and not counts["advice"]:
        return "all is well"
    parts = [(counts["failed"], "failed"), (counts["skipped"], "not looked at"), (counts["advice"], "could be better")]
    return ", ".join(f"{count} {text}" for count, text in parts if count)


def _show(finding: Finding) -> None:
    sign, style = _SIGNS[finding.state]
    item(sign, f"{finding.name}: {finding.text}", style=style)
    if finding.fix:
        item("→", finding.fix, style=style, indent=2)


def _findings(where: Where, timeout: float | None) -> Iterator[Finding]:
    from camora import plugins

    yield Finding(name="python", state="ok", text=f"{platform.python_version()}, {platform.platform()}")
    yield _libraries()
    try:
        yield _of_plugins(plugins.load())
    except CamoraError as error:
        yield Finding(name="plugins", state="failed", text=str(error), fix="camora plugins lists them all")
        return
    try:
        app = where.find()
    except ConfigurationError as error:
        yield Finding(name="app", state="failed", text=str(error), fix=_app_fix(error))
        return
    yield Finding(name="settings", state="ok", text=_settings(where))
    yield Finding(name="app", state="ok", text=_of_app(app))
    checks = sorted(app.catalog.items["camora_checks"].values(), key=lambda check: check.order)
    yield from _examined(app, checks, timeout)


def _libraries() -> Finding:
    """What camora requires of this machine, as it stands in its own distribution."""
    versions, missing = [], []
    for line in requires("camora") or ():
        requirement, _, marker = line.partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
        if marker:
            continue  # of an extra, or of another platform
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(requirement.strip())
    if missing:
        text = f"not installed: {', '.join(missing)}"
        return Finding(name="libraries", state="failed", text=text, fix="pip install --force-reinstall camora")
    return Finding(name="libraries", state="ok", text=", ".join(versions))


def _settings(where: Where) -> str:
    from camora import config

    path = where.config or config.find()
    if path is None:
        return "no camora.toml: all comes from code and CAMORA_… variables"
    profile = where.profile or os.environ.get("CAMORA_PROFILE")
    return f"{path}{f', profile {profile}' if profile else ''}"


def _of_plugins(catalog: Catalog) -> Finding:
    broken = [
        f"{info.name} ({info.distribution} {info.version}): {info.why}"
        for info in catalog.plugins
        if info.state == "broken"
    ]
    if broken:
        fix = "reinstall, or uninstall, each of these"
        return Finding(name="plugins", state="failed", text="\n".join(broken), fix=fix)
    names = (info.name if info.state == "active" else f"{info.name} ({info.state})" for info in catalog.plugins)
    return Finding(name="plugins", state="ok", text=", ".join(names))


def _of_app(app: Camora) -> str:
    count = len(app.tasks.by_name)
    return f"{app.name!r} with {count} task{'' if count == 1 else 's'}, its broker is {app.broker!r}"


def _app_fix(error: ConfigurationError) -> str:
    """What to do, and what follows."""
    if isinstance(error, SettingsError):
        return "mend each line, until  camora config check  finds no mistake; then  camora doctor  again"
    missing = re.search(r"there is no module '([^']+)'", str(error))
    if missing is not None:
        near = _near_module(missing[1])
        wrong = f"write {near!r} for {missing[1]!r}" if near else f"make {missing[1].replace('.', '/')}.py"
        return f"{wrong}, or name the app's module by --app module:attribute or  app =  in camora.toml"
    return "mend what this says, or name the app by --app module:attribute; then  camora doctor  again"


def _near_module(name: str) -> str | None:
    """A module beside the one that is missing whose name is nearly the same."""
    package, _, last = name.rpartition(".")
    folder = package.replace(".", "/")
    beside = [one.name for one in pkgutil.iter_modules([str(Path(place, folder)) for place in sys.path])]
    near = difflib.get_close_matches(last, beside, n=1)
    return f"{package}.{near[0]}".lstrip(".") if near else None


def _examined(app: Camora, checks: Sequence[Check], timeout: float | None) -> Iterator[Finding]:
    with Examiner(app) as examiner:
        missing: dict[str, str] = {}  # what did not pass, with the failure that is to blame
        for check in checks:
            needs = check.needs if check.offline or check.name == _GATE else (*check.needs, _GATE)
            cause = next((missing[name] for name in needs if name in missing), None)
            if cause is not None:
                missing[check.name] = cause
                yield Finding(name=check.name, state="skipped", text=f"not looked at: {cause} failed")
                continue
            with waiting(f"{check.name} …"):
                result = examiner.run(check, timeout or check.timeout)
            state = "failed" if not result.ok else "advice" if result.fix else "ok"
            yield Finding(name=check.name, state=state, text=result.text, fix=result.fix)
            if not result.ok:
                missing[check.name] = check.name
