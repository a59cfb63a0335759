"""The parameters that many commands of the core share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from cyclopts import Parameter

from camora.command_options import AppOption, ConfigOption, JsonOption, ProfileOption, Which, YesOption

if TYPE_CHECKING:
    from camora.app import Camora

__all__ = ["AppOption", "ConfigOption", "JsonOption", "ProfileOption", "Where", "YesOption"]


@Parameter(name="*")
@frozen(kw_only=True)
class Where(Which):
    """Which app a command is about, `*, where: Where = Where()`."""

    def find(self) -> Camora:
        """The app; see `find_app`."""
        from camora.cli.finding import find_app

        return find_app(self.app, config=self.config, profile=self.profile)
