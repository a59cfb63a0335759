"""The settings of workflows: `[extensions.workflows]` of camora.toml."""

from __future__ import annotations

from typing import Any

import attrs
from camora.errors import SettingsError
from camora.settings import Duration
from camora.units import duration

__all__ = ["WorkflowSettings"]

_DAY = 24 * 3600.0


def _as_seconds(value: Any) -> Any:
    try:
        return duration(value)
    except ValueError:
        return value  # for the validator to name


def _positive(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, float) or not 0 < value < float("inf"):
        raise SettingsError(f"{attribute.name} = {value!r}: expected seconds above 0, or a text such as '5m'")


@attrs.frozen(kw_only=True)
class WorkflowSettings:
    """All are seconds, or texts such as "5m". Raises `SettingsError` that names the field.

    `keep` is how long a workflow is kept after its end, and a job's journal after it was last written to; that for a
    week at least. Every `sweep` each worker looks for workflows that have stood still for `quiet`, and does what
    somebody who died left undone. A recording that has not grown for `abandon` will never start, and is deleted.
    """

    keep: Duration = attrs.field(default=7 * _DAY, converter=_as_seconds, validator=_positive)
    sweep: Duration = attrs.field(default=30.0, converter=_as_seconds, validator=_positive)
    quiet: Duration = attrs.field(default=60.0, converter=_as_seconds, validator=_positive)
    abandon: Duration = attrs.field(default=3600.0, converter=_as_seconds, validator=_positive)
