"""Options of tasks that plugins own: what they are called, what they take, and how they are told from the core's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from camora.errors import ConfigurationError

__all__ = ["PluginOptions", "TaskOption", "checked_options"]


def _name(_: Any, attribute: Any, value: Any) -> None:
    del attribute
    if not isinstance(value, str) or not value.isidentifier():
        raise ConfigurationError(f"task option {value!r}: its name must be one that a keyword argument can have")


@attrs.frozen
class TaskOption:
    """An option of tasks that a plugin owns, such as `@app.task(wait_replicas=1)`.

    `annotation` is its type, as that of a field of a settings class: what it takes in code and in `camora.toml`.
    `check` gets the value and returns it, or what it stands for; it raises `ValueError` that says what it expected,
    or `ConfigurationError`, as `structure_settings` does.
    With `dispatch`, `.options(…)` takes it too, for one dispatch.

    The value reaches the broker in `Envelope.options`. A broker says in `Broker.task_options` which it reads; all
    others refuse it. None is the same as not given.
    """

    name: str = attrs.field(validator=_name)
    annotation: Any
    check: Callable[[Any], Any] | None = attrs.field(default=None, kw_only=True)
    dispatch: bool = attrs.field(default=False, kw_only=True)
    help: str = attrs.field(default="", kw_only=True)

    def checked(self, given: Any) -> Any:
        """The value to be used. Raises `ValueError` that says what was expected."""
        from camora.structuring import WRONG, Structuring  # a plugin's module imports this one, and is to be light

        annotation = self.annotation
        value = given
        if not (isinstance(annotation, type) and attrs.has(annotation) and isinstance(given, annotation)):
            reading = Structuring()
            value = reading.read(annotation, given, (self.name,))
            if value is WRONG:
                raise ValueError(reading.problems[0].text)
        try:
            return value if self.check is None else self.check(value)
        except ConfigurationError as error:
            raise ValueError("; ".join(getattr(error, "problems", [str(error)]))) from error


PluginOptions = Mapping[str, TaskOption]
"""What the installed plugins offer, by name."""


def checked_options(offered: PluginOptions, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of offered options, None left out. Raises `ConfigurationError` naming the place and the option."""
    found = {}
    for name, value in given.items():
        if value is not None:
            try:
                found[name] = offered[name].checked(value)
            except ValueError as error:
                raise ConfigurationError(f"{where}: {name}={value!r}: {error}") from None
    return found
