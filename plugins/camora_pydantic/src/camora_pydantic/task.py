"""Task classes that are pydantic models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

from camora.task import BaseTask
from pydantic import BaseModel, Field, PrivateAttr

__all__ = ["PydanticTask"]

if TYPE_CHECKING:
    _Model = BaseModel
else:

    class _CalledOnce(type(BaseModel)):
        """A worker calls a task class with the object that it made of the payload; that is not made a second time."""

        def __call__(cls, *args: Any, **fields: Any) -> Any:
            if len(args) == 1 and not fields and type(args[0]) is cls:
                return args[0]
            return super().__call__(*args, **fields)

    class _Model(BaseModel, metaclass=_CalledOnce):
        pass


@dataclass_transform(kw_only_default=True, field_specifiers=(Field, PrivateAttr))
class PydanticTask(_Model, BaseTask):
    """The base of task classes that are models: fields are the payload, checked by pydantic; `execute` does the work.

    As with `BaseTask`, `execute` may be async or not, and its parameters are injected by type. Making an object of
    wrong values raises pydantic's `ValidationError`; dispatching the class with them raises `PayloadError`.
    """

    makes_fields: ClassVar[bool] = True
