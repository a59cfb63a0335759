"""`camora plugins`."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter

__all__ = ["list_plugins"]


def list_plugins(
    app: str | None = None, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """List the installed plugins: what each provides, and why one is not active.

    Parameters
    ----------
    app
        module:attribute of an app: also print its chain, outermost link first, with where each link came from.
    as_json
        Print JSON.
    """
    import attrs
    from rich.console import Console
    from rich.table import Table

    from camora import plugins

    catalog = plugins.load()
    chain = _chain(app) if app else []
    console = Console()
    if as_json:
        rows = [attrs.asdict(info) for info in catalog.plugins]
        console.print_json(json.dumps({"plugins": rows, "chain": chain} if app else {"plugins": rows}))
        return
    table = Table("plugin", "distribution", "version", "state", "provides")
    for info in catalog.plugins:
        offers = [f"{hook.removeprefix('camora_')}: {', '.join(names)}" for hook, names in info.provides.items()]
        state = info.state if not info.why else f"{info.state}: {info.why}"
        table.add_row(info.name, info.distribution, info.version, state, "\n".join(offers))
    console.print(table)
    if chain:
        links = Table("link", "phase", "from", title="the chain around a job, outermost first", title_justify="left")
        for link in chain:
            links.add_row(link["name"], link["phase"], link["origin"])
        console.print(links)


def _chain(reference: str) -> list[dict[str, str]]:
    from camora.reference import import_object

    return [
        {"name": link.name, "phase": link.middleware.phase, "origin": link.origin}
        for link in import_object(reference).chain()
    ]
