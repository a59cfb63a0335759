"""What a new plugin and its parts are called."""

from __future__ import annotations

import keyword
import re
from typing import Self

import attrs

from camora import plugins
from camora.errors import ConfigurationError, PluginConflict

__all__ = ["Names"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_HOOKS = {
    "broker": "camora_brokers",
    "codec": "camora_codecs",
    "injector": "camora_injectors",
    "middleware": "camora_middleware",
    "pool": "camora_pools",
    "results": "camora_result_backends",
    "retry": "camora_retry_policies",
    "scheduler": "camora_triggers",
}


@attrs.frozen(kw_only=True)
class Names:
    """`name` of what is offered, of the distribution, of the import package, and the beginning of its classes."""

    name: str
    distribution: str
    package: str
    prefix: str

    @classmethod
    def of(cls, name: str, kind: str) -> Self:
        """The names that follow from one.

        Raises `ConfigurationError` for a name that cannot be used, `PluginConflict` for one that is taken.
        """
        bare = name.removeprefix("camora-")
        if not _NAME.fullmatch(bare) or len(bare) > 40:
            hint = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", bare).lower()).strip("-")
            near = f"; {hint!r} would do" if _NAME.fullmatch(hint) and len(hint) <= 40 else ""
            raise ConfigurationError(
                f"new-plugin {name!r}: a name is of lower-case letters, digits and single hyphens, begins with a "
                f"letter and has at most 40 characters{near}"
            )
        if keyword.iskeyword(bare):
            raise ConfigurationError(f"new-plugin {name!r}: is a word of Python's own; choose another")
        _refuse_taken(bare, kind)
        return cls(
            name=bare,
            distribution=f"camora-{bare}",
            package=f"camora_{bare.replace('-', '_')}",
            prefix="".join(part.capitalize() for part in bare.split("-")),
        )


def _refuse_taken(name: str, kind: str) -> None:
    catalog = plugins.load(strict=False)
    for claim in (f"name {name}", f"scheme {name}"):
        owner = catalog.owners.get((_HOOKS[kind], claim))
        if owner is not None:
            raise PluginConflict(
                f"new-plugin {name!r}: {owner} offers the {claim.replace(' ', ' ' + chr(39), 1)}' already. "
                "Choose another name, or uninstall that plugin"
            )
