"""Camora in a Django project: `from camora_django import app`, and then `@app.task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camora_django.django_app import DjangoCamora

    app: DjangoCamora

__all__ = ["DjangoCamora", "app"]


def __getattr__(name: str) -> Any:
    if name == "DjangoCamora":
        from camora_django.django_app import DjangoCamora

        return DjangoCamora
    if name == "app":
        from camora_django.making import the_app

        # Kept under this name, by which other processes import it.
        return globals().setdefault("app", the_app())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
