"""`camora plugins`: what is installed, and whether it is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from camora.cli.common import FAILED, OK, ConfigOption, JsonOption, Where, find_app, note, print_json, say, table
from camora.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from camora.app import Camora
    from camora.plugins import Catalog, Source

__all__ = ["app"]

app = cyclopts.App(name="plugins", help="List the installed plugins; check one.")

AppArgument = Annotated[str | None, Parameter(help="module:attribute of the app whose chain is printed too; as --app.")]
NameArgument = Annotated[str | None, Parameter(help="A plugin's name, or its distribution's; default: all.")]
UrlOption = Annotated[str | None, Parameter(help="Make brokers and result backends from this URL; nothing is opened.")]


@app.default
def list_plugins(
    app: AppArgument = None,
    /,
    *,
    json: JsonOption = False,
    where: Where = Where(),  # noqa: B008 -- frozen
) -> None:
    """List the plugins: what each provides, why one is not active, and the chain that they make around a job."""
    import attrs

    catalog, found, problem = _looked_up(app, where)
    chain = None if found is None else _chain(found)
    if json:
        answer: dict[str, Any] = {"plugins": [attrs.asdict(info) for info in catalog.plugins]}
        print_json(answer | ({"chain": chain} if chain else {}) | ({"problem": problem} if problem else {}))
        return
    rows = []
    for info in catalog.plugins:
        offers = [
            f"{hook.removeprefix('camora_')}: {', '.join(names)}" for hook, names in info.provides.items() if names
        ]
        state = f"{info.state}: {info.why}" if info.why else info.state
        rows.append((info.name, info.distribution, info.version, info.api or "", state, "\n".join(offers)))
    table(("plugin", "distribution", "version", "API", "state", "provides"), rows)
    if chain is not None:
        say("")
        links = [(link["name"], link["phase"], link["origin"]) for link in chain]
        table(("link", "phase", "from"), links, title="The chain around a job, outermost first")
    if problem:
        note(f"the chain cannot be told: {problem}")


@app.command(name="check")
def check_plugins(
    name: NameArgument = None,
    /,
    *,
    url: UrlOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> int:
    """Examine one plugin, or all: imports, hooks, names, settings, what is made. Exit code 1 if something is wrong."""
    import attrs

    from camora.plugin_check import check

    findings = check(name, url=url, sources=_sources(config))
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


def _looked_up(reference: str | None, where: Where) -> tuple[Catalog, Camora | None, str]:
    """The plugins; the app, if there is one; and why it is not to be had, if it should be.

    The list is for those, too, whose app does not start because of a plugin.
    """
    from camora.config import find
    from camora.config.loading import catalog_near

    reference = reference or where.app
    if reference is None and where.config is None and find() is None:
        return catalog_near(), None, ""
    try:
        found = find_app(reference, config=where.config, profile=where.profile)
    except ConfigurationError as error:
        if reference is not None:
            raise
        return catalog_near(where.config), None, str(error)
    return found.catalog, found, ""


def _sources(config: Path | None) -> list[Source]:
    """The installed plugins, and the local ones that the environment or the file names."""
    from camora import plugins
    from camora.config.loading import catalog_near

    named = [info.name for info in catalog_near(config).plugins if info.distribution == "local"]
    installed = [source for source in plugins.discover() if source.distribution != "local"]
    return [*installed, *map(plugins.local, named)]


def _chain(app: Camora) -> list[dict[str, str]]:
    return [{"name": link.name, "phase": link.middleware.phase, "origin": link.origin} for link in app.chain()]
