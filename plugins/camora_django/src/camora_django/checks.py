"""What `manage.py check` says of the set-up."""

from __future__ import annotations

from typing import Any

from camora.errors import CamoraError
from django.core import checks

__all__ = ["check_app"]


@checks.register("camora")
def check_app(**options: Any) -> list[checks.CheckMessage]:
    """Whether settings.CAMORA makes an app. No I/O."""
    del options
    try:
        import camora_django

        _ = camora_django.app
    except CamoraError as error:
        return [checks.Error(str(error), id="camora.E001")]
    return []
