"""The extensions of one app: made of what plugins offer, and asked what follows the end of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from camora.chain import Link
from camora.dispatchable import Composer
from camora.errors import ConfigurationError, PluginConflict
from camora.interfaces.extension import Ending, Extension, FollowUp, Host
from camora.message import Message
from camora.plugins import Catalog
from camora.structuring import unknown_key

__all__ = ["Extensions", "Installed"]

_HOOK = "camora_extensions"
_NOTHING = FollowUp()


@attrs.frozen
class Installed:
    """An extension, its name, and the name of the plugin that offers it."""

    name: str
    plugin: str
    extension: Extension


class Extensions:
    """One of each extension that is installed, in order of their names.

    Raises `ConfigurationError` for settings of one that is not installed, `SettingsError` for wrong ones, and
    `PluginConflict` where two want to be the only one.
    """

    def __init__(self, catalog: Catalog, settings: Mapping[str, Any]) -> None:
        offered = catalog.items[_HOOK]
        for name in settings:
            if name not in offered:
                text = unknown_key((name,), offered, what="extension").text
                raise ConfigurationError(f"extensions={{{name!r}: …}}: {text}; did you forget a plugin?")
        self.installed = tuple(
            Installed(name, _plugin_of(catalog, name), offered[name].make(settings=settings.get(name)))
            for name in sorted(offered)
        )
        self._by_header = {one.extension.header: one for one in self._only("header", "both read the header {!r}")}
        composing = self._only("composer", "both compose what is dispatched as one")
        self.composer: Composer | None = next((one.extension.composer for one in composing), None)
        self.headers = frozenset(self._by_header)
        """The headers of messages whose end some extension wants to know of."""

    def _only(self, attribute: str, both: str) -> list[Installed]:
        """Those that have this attribute, each with a value of its own; of composers there is one."""
        found: dict[Any, Installed] = {}
        for one in self.installed:
            value = getattr(one.extension, attribute)
            if value:
                key = value if isinstance(value, str) else attribute
                if key in found:
                    raise PluginConflict(
                        f"the extensions {found[key].name!r} of {found[key].plugin} and {one.name!r} of {one.plugin} "
                        f"{both.format(value)}. Uninstall one, or name one's plugin in [plugins] disable"
                    )
                found[key] = one
        return list(found.values())

    @property
    def links(self) -> list[Link]:
        """Their middleware, in the order of their names."""
        return [Link(link, one.plugin) for one in self.installed for link in one.extension.middleware]

    def attach(self, host: Host) -> None:
        """Tell each of the app."""
        for one in self.installed:
            one.extension.attach(host)

    @property
    def beside(self) -> list[Installed]:
        """Those that run something beside a worker."""
        return [one for one in self.installed if type(one.extension).beside is not Extension.beside]

    def concern(self, message: Message) -> bool:
        """Whether some extension wants to know of this job's end."""
        headers = message.headers
        return bool(headers) and not self.headers.isdisjoint(headers)

    async def ended(self, endings: Sequence[Ending]) -> list[FollowUp]:
        """What follows these endings, of all the extensions that they concern; one answer each, in order."""
        found = [_NOTHING] * len(endings)
        for header, one in self._by_header.items():
            places = [index for index, ending in enumerate(endings) if header in ending.message.headers]
            if not places:
                continue
            answers = await one.extension.ended([endings[index] for index in places])
            if len(answers) != len(places):
                raise ConfigurationError(
                    f"the extension {one.name!r} of {one.plugin} answered {len(answers)} of {len(places)} endings"
                )
            for index, answer in zip(places, answers, strict=True):
                found[index] = answer if found[index] is _NOTHING else _both(found[index], answer)
        return found

    async def requeued(self, messages: Sequence[Message]) -> list[Message]:
        """These dead letters as the extensions that they concern want them put back; one each, in order."""
        found = list(messages)
        for header, one in self._by_header.items():
            places = [index for index, message in enumerate(found) if header in message.headers]
            if not places:
                continue
            answers = await one.extension.requeued([found[index] for index in places])
            for index, answer in zip(places, answers, strict=True):
                found[index] = answer
        return found


def _both(first: FollowUp, second: FollowUp) -> FollowUp:
    return FollowUp(
        successors=first.successors + second.successors,
        records=first.records + second.records,
        instead=first.instead or second.instead,
    )


def _plugin_of(catalog: Catalog, name: str) -> str:
    found = (info.name for info in catalog.plugins if name in info.provides.get(_HOOK, ()))
    return next(found, "a plugin")
