"""The app of a Django project, from `settings.CAMORA`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import django
from camora import Camora
from camora.config import app_arguments, read_mapping
from camora.errors import ConfigurationError
from camora.reference import import_object
from django.apps import apps
from django.conf import settings

from camora_django.broker import DjangoBroker
from camora_django.django_app import DjangoCamora
from camora_django.errors import WrongSettings
from camora_django.refusing import RefusingBroker

__all__ = ["the_app"]

_NAME = "settings.CAMORA"
_BROKER = "django://default"


def the_app() -> Camora:
    """The app that `settings.CAMORA` describes, or names; sets Django up first where nobody has.

    Of settings that cannot be, it is one that raises `WrongSettings`, which names the setting, when it is used.
    """
    if not (apps.ready or apps.loading):
        # A worker's process comes here by the app's name, and not by manage.py.
        django.setup()
    given = getattr(settings, "CAMORA", {})
    try:
        return _made(given)
    except ConfigurationError as error:
        return DjangoCamora(RefusingBroker(WrongSettings(str(error))), results=False)


def _made(given: Any) -> Camora:
    if isinstance(given, str):
        return _named(given)
    if isinstance(given, Mapping):
        return _described(given)
    raise ConfigurationError(
        f"{_NAME} is a {type(given).__name__}; give a dict of tables as in camora.toml, such as "
        '{"broker": {"url": "django://default"}}, or the dotted path of an app of your own'
    )


def _named(path: str) -> Camora:
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: Any = import_object(f"{module}:{attribute}")
    except ConfigurationError as error:
        raise ConfigurationError(f"{_NAME}: {error}") from error
    if not isinstance(found, Camora):
        raise ConfigurationError(f"{_NAME} = {path!r}: is a {type(found).__name__}, not a Camora")
    if isinstance(found.broker, DjangoBroker) and not found.broker.joins:
        raise ConfigurationError(f"{_NAME} = {path!r}: {found.broker.why_not()}")
    return found


def _described(given: Mapping[str, Any]) -> Camora:
    tables = dict(given)
    broker = tables.get("broker", {})
    if isinstance(broker, Mapping):
        tables["broker"] = {"url": _BROKER, **broker}
    found = read_mapping(tables, name=_NAME, folder=_folder(), environ=os.environ)
    app = DjangoCamora(**app_arguments(found))
    found.place_queues(app)
    found.declare_schedules(app)
    return app


def _folder() -> Path:
    """From where relative paths are meant: the project's folder, as `startproject` calls it."""
    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd())
