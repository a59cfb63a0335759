"""`camora plugins`: what is installed, and whether it is sound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

if TYPE_CHECKING:
    from camora.plugins import Catalog, PluginInfo

__all__ = ["app", "check_plugins", "list_plugins"]

AsJson = Annotated[bool, Parameter(name="--json", negative=())]

app = cyclopts.App(name="plugins", help="List the installed plugins; check one.")


@app.default
def list_plugins(app: str | None = None, *, as_json: AsJson = False) -> None:
    """List the installed plugins: what each provides, and why one is not active.

    Parameters
    ----------
    app
        module:attribute of an app: also print its chain, outermost link first, with where each link came from.
    as_json
        Print JSON.
    """
    catalog, chain = _of_app(app) if app else (_installed(), None)
    if as_json:
        import attrs

        answer: dict[str, Any] = {"plugins": [attrs.asdict(info) for info in catalog.plugins]}
        if chain is not None:
            answer["chain"] = chain
        print(json.dumps(answer, indent=2))  # noqa: T201
        return
    _print_plugins(catalog.plugins)
    if chain is not None:
        _print_chain(chain)


@app.command(name="check")
def check_plugins(name: str | None = None, *, url: str | None = None, as_json: AsJson = False) -> int:
    """Examine one plugin, or all: imports, hooks, names, settings, what is made. Exit code 1 when something is wrong.

    Parameters
    ----------
    name
        A plugin's name, or its distribution's; all when left out.
    url
        A URL to make brokers and result backends from. They are made, never opened.
    as_json
        Print JSON.
    """
    import attrs

    from camora.plugin_check import check

    findings = check(name, url=url)
    wrong = sum(not finding.note for finding in findings)
    if as_json:
        answer = {"ok": not wrong, "findings": [attrs.asdict(finding) for finding in findings]}
        print(json.dumps(answer, indent=2))  # noqa: T201
        return 1 if wrong else 0
    for finding in findings:
        print(f"{'note' if finding.note else 'wrong'}: {finding.plugin}: {finding.text}")  # noqa: T201
    print(f"{name or 'all plugins'}: {f'{wrong} to be mended' if wrong else 'nothing is wrong'}")  # noqa: T201
    return 1 if wrong else 0


def _installed() -> Catalog:
    from camora import plugins

    return plugins.load(strict=False)


def _of_app(reference: str) -> tuple[Catalog, list[dict[str, str]]]:
    from camora.reference import import_object

    found = import_object(reference)
    chain = [{"name": link.name, "phase": link.middleware.phase, "origin": link.origin} for link in found.chain()]
    return found.catalog, chain


def _print_plugins(infos: Sequence[PluginInfo]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("plugin", "distribution", "version", "API", "state", "provides")
    for info in infos:
        offers = [f"{hook.removeprefix('camora_')}: {', '.join(names)}" for hook, names in info.provides.items()]
        state = info.state if not info.why else f"{info.state}: {info.why}"
        api = "" if info.api is None else str(info.api)
        table.add_row(info.name, info.distribution, info.version, api, state, "\n".join(offers))
    Console().print(table)


def _print_chain(chain: Sequence[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    links = Table("link", "phase", "from", title="the chain around a job, outermost first", title_justify="left")
    for link in chain:
        links.add_row(link["name"], link["phase"], link["origin"])
    Console().print(links)
