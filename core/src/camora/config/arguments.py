"""A configuration as the keyword arguments of `Camora`: here things are made, and users' modules imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from camora.config.choices import Choice, Reference, Signing
from camora.config.configuration import Configuration
from camora.config.files import folder_of
from camora.errors import CamoraError, ConfigurationError, SettingsError, UnsupportedCapability
from camora.interfaces.broker import Broker
from camora.interfaces.codec import Codec
from camora.interfaces.middleware import Middleware
from camora.interfaces.observer import Observer
from camora.outbox import Outbox
from camora.reference import import_object

__all__ = ["app_arguments", "problems_of_choices"]


def app_arguments(configuration: Configuration) -> dict[str, Any]:
    """The keyword arguments of `Camora(…)` that a configuration stands for.

    Makes brokers, codecs and the like, without I/O, and imports what `[middleware]` and `[observers]` name. Raises
    `SettingsError` holding every problem, each with its place.
    """
    return _Making(configuration).everything()


def problems_of_choices(configuration: Configuration) -> list[str]:
    """What is found wrong when brokers, codecs and the like are made, on a machine where they need not be used.

    Nothing of the users' is imported, and a library that is not installed is no mistake.
    """
    making = _Making(configuration, elsewhere=True)
    making.choices()
    return making.problems


class _Making:
    def __init__(self, configuration: Configuration, *, elsewhere: bool = False) -> None:
        self._read = configuration
        self._elsewhere = elsewhere
        self.problems: list[str] = []

    def everything(self) -> dict[str, Any]:
        read = self._read
        made = {
            "name": read.name,
            **self.choices(),
            "middleware": self._all(read.middleware, Middleware),
            "observers": self._all(read.observers, Observer),
            "extensions": dict(read.extensions),
            "queues": list(read.queues.values()),
            "pools": dict(read.pools),
            "settings": read.settings,
            "worker": read.worker,
            "task_options": read.task_options,
            "catalog": read.catalog,
        }
        if self.problems:
            raise SettingsError("\n".join(self.problems), problems=self.problems)
        return made

    def choices(self) -> dict[str, Any]:
        """What plugins make, each one for itself."""
        read = self._read
        broker = self._choice(read.broker)
        if broker is not None:
            self._check_kinds(broker)
        return {
            "broker": broker,
            "results": self._choice(read.results) if isinstance(read.results, Choice) else read.results,
            "outbox": self._outbox(),
            "codec": self._signed(self._choice(read.codec)),
            "result_codec": None if read.result_codec is None else self._signed(self._choice(read.result_codec)),
            "retry_policy": self._choice(read.retry),
        }

    def _outbox(self) -> Broker | None:
        made: Broker | None = self._choice(self._read.outbox)
        if made is not None:
            self._try(("outbox", "url"), lambda: Outbox(made, ""))  # what it asks of a broker
        return made

    def _check_kinds(self, broker: Broker) -> None:
        for name, queue in self._read.queues.items():
            try:
                Broker.declare(broker, [queue])  # what all brokers look at, and nothing is remembered
            except UnsupportedCapability as error:
                self.problems.append(self._read.source.line_of(("queues", name, "kind"), str(error)))

    def _try(self, path: Any, make: Callable[[], Any]) -> Any:
        source = self._read.source
        try:
            return make()
        except SettingsError as error:
            self.problems += [source.line_of(path, source.scrubbed(text)) for text in error.problems]
            return None
        except CamoraError as error:
            text = source.told(error, path)
        except Exception as error:  # noqa: BLE001 -- strangers' and users' code
            if self._elsewhere and isinstance(error, ImportError):
                return None
            text = f"making it raised {type(error).__name__}: {source.told(error, path)}"
        self.problems.append(source.line_of(path, text))
        return None

    def _choice(self, choice: Choice | None) -> Any:
        if choice is None:
            return None
        # Its settings were looked at already: what is wrong now is in the URL.
        return self._try(choice.path if choice.url is None else (*choice.path, "url"), choice.make)

    def _signed(self, codec: Codec | None) -> Codec | None:
        signing = self._read.signing
        if signing is None or codec is None:
            return codec
        signed: Codec | None = self._try(signing.path, lambda: _signed(codec, signing))
        return signed

    def _all(self, wanted: tuple[Choice | Reference, ...], kind: type[Any]) -> list[Any]:
        return [
            self._choice(one) if isinstance(one, Choice) else self._try(one.path, partial(self._own, one, kind))
            for one in wanted
        ]

    def _own(self, reference: Reference, kind: type[Any]) -> Any:
        folder = folder_of(self._read.path)
        if folder not in sys.path:
            sys.path.insert(0, folder)  # the user's modules lie beside the file
        what = kind.__name__.lower()
        found = import_object(reference.name, kind=what)
        made = found() if isinstance(found, type) else found
        if not isinstance(made, kind):
            raise ConfigurationError(f"{what} {reference.name!r}: is no {kind.__name__} and makes none")
        return made


def _signed(codec: Codec, signing: Signing) -> Codec:
    from camora.builtin.signing import SignedCodec

    return SignedCodec(codec, signing.keys, accept_unsigned=signing.accept_unsigned, max_age=signing.max_age)
