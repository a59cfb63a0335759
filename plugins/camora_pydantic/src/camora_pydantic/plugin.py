"""The plugin: what camora-pydantic offers. Pydantic is imported only when somebody uses it."""

from __future__ import annotations

from collections.abc import Sequence

from camora.hookspecs import hookimpl
from camora.interfaces import TypeSupport
from camora.provider import MadeFrom, Provider


def _types(_: MadeFrom) -> TypeSupport:
    from camora_pydantic.support import PydanticSupport

    return PydanticSupport()


@hookimpl
def camora_types() -> Sequence[Provider[TypeSupport]]:
    """Pydantic's types."""
    return [Provider("pydantic", _types, help="models, pydantic dataclasses, and annotations that pydantic checks")]
