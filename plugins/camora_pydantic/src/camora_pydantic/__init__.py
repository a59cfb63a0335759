"""Pydantic models as arguments, results and task classes."""

from typing import TYPE_CHECKING

from camora.lazy import names_of

if TYPE_CHECKING:
    from camora_pydantic.task import PydanticTask

__all__ = ["PydanticTask"]

if not TYPE_CHECKING:  # every process that has the plugin imports this; pydantic only those that use it
    __getattr__ = names_of(__name__, {"camora_pydantic.task": ("PydanticTask",)})


def __dir__() -> list[str]:
    return __all__
