"""`camora plugins`: what is installed, and whether it is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from camora.cli.common import FAILED, OK, JsonOption, find_app, note, print_json, say, table

if TYPE_CHECKING:
    from camora.plugins import Catalog

__all__ = ["app"]

app = cyclopts.App(name="plugins", help="List the installed plugins; check one.")

AppArgument = Annotated[
    str | None, Parameter(help="module:attribute of an app: print its chain too, outermost link first.")
]
NameArgument = Annotated[str | None, Parameter(help="A plugin's name, or its distribution's; default: all.")]
UrlOption = Annotated[str | None, Parameter(help="Make brokers and result backends from this URL; nothing is opened.")]


@app.default
def list_plugins(app: AppArgument = None, /, *, json: JsonOption = False) -> None:
    """List the installed plugins: what each provides, and why one is not active."""
    import attrs

    catalog, chain = _of_app(app) if app else (_installed(), None)
    if json:
        answer: dict[str, Any] = {"plugins": [attrs.asdict(info) for info in catalog.plugins]}
        print_json(answer if chain is None else {**answer, "chain": chain})
        return
    rows = []
    for info in catalog.plugins:
        offers = [f"{hook.removeprefix('camora_')}: {', '.join(names)}" for hook, names in info.provides.items()]
        state = f"{info.state}: {info.why}" if info.why else info.state
        rows.append((info.name, info.distribution, info.version, info.api or "", state, "\n".join(offers)))
    table(("plugin", "distribution", "version", "API", "state", "provides"), rows)
    if chain is not None:
        say("")
        links = [(link["name"], link["phase"], link["origin"]) for link in chain]
        table(("link", "phase", "from"), links, title="The chain around a job, outermost first")


@app.command(name="check")
def check_plugins(name: NameArgument = None, /, *, url: UrlOption = None, json: JsonOption = False) -> int:
    """Examine one plugin, or all: imports, hooks, names, settings, what is made. Exit code 1 if something is wrong."""
    import attrs

    from camora.plugin_check import check

    findings = check(name, url=url)
    wrong = sum(not finding.note for finding in findings)
    if json:
        print_json({"ok": not wrong, "findings": [attrs.asdict(finding) for finding in findings]})
        return FAILED if wrong else OK
    for finding in findings:
        text = f"{finding.plugin}: {finding.text}"
        if finding.note:
            note(text)
        else:
            say(f"✗ {text}", style="red")
    say(f"{name or 'all plugins'}: {f'{wrong} to be mended' if wrong else 'nothing is wrong'}")
    return FAILED if wrong else OK


def _installed() -> Catalog:
    from camora import plugins

    return plugins.load(strict=False)


def _of_app(reference: str) -> tuple[Catalog, list[dict[str, str]]]:
    found = find_app(reference)
    links = found.chain()
    return found.catalog, [{"name": link.name, "phase": link.middleware.phase, "origin": link.origin} for link in links]
