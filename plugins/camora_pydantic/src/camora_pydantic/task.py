"""Task classes that are pydantic models."""

from __future__ import annotations

from typing import ClassVar, dataclass_transform

from camora.task import BaseTask
from pydantic import BaseModel, Field, PrivateAttr

__all__ = ["PydanticTask"]


@dataclass_transform(kw_only_default=True, field_specifiers=(Field, PrivateAttr))
class PydanticTask(BaseModel, BaseTask):
    """The base of task classes that are models: fields are the payload, checked by pydantic; `execute` does the work.

    As with `BaseTask`, `execute` may be async or not, and its parameters are injected by type. Making an object of
    wrong values raises pydantic's `ValidationError`; dispatching the class with them raises `PayloadError`.
    """

    makes_fields: ClassVar[bool] = True
