"""The parameters that commands share: those of the core, and those of plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Group, Parameter

__all__ = ["AppOption", "ConfigOption", "JsonOption", "ProfileOption", "Which", "YesOption"]

_WHERE = Group("Which app", sort_key=100)

AppOption = Annotated[
    str | None,
    Parameter(
        name=["--app", "-a"],
        group=_WHERE,
        env_var="CAMORA_APP",
        show_env_var=False,
        help="module:attribute of the app; default: `app =` of camora.toml.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    Parameter(name="--config", group=_WHERE, help="The camora.toml to use; default: found upwards from here."),
]
ProfileOption = Annotated[
    str | None, Parameter(name="--profile", group=_WHERE, help="Lay this profile of camora.toml over it.")
]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), show_default=False, help="Print JSON.")]
YesOption = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), show_default=False, help="Do not ask, do it.")]


@Parameter(name="*")
@frozen(kw_only=True)
class Which:
    """Which app a command is about: three parameters as one. A `Command` with `finds_app` is given what finds it."""

    app: AppOption = None
    config: ConfigOption = None
    profile: ProfileOption = None
