"""The plugin: the scheme `django`. Django is imported only when somebody uses it."""

from __future__ import annotations

from collections.abc import Sequence

from camora.hookspecs import hookimpl
from camora.interfaces import Broker
from camora.provider import MadeFrom, Provider
from camora_sql.settings import SqlSettings

_HELP = "tables in a database of your Django project, and its transactions: django://default"


def _broker(made: MadeFrom) -> Broker:
    from camora_django.broker import DjangoBroker

    return DjangoBroker(made.url or "", made.settings)


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    """The broker in Django's database."""
    return [Provider("django", _broker, settings=SqlSettings, schemes=("django",), help=_HELP)]
