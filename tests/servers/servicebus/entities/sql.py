"""The expressions of SQL filters ("Subscription rule SQL filter syntax"), in the three values of SQL.

What is read: properties of the user and of the system (`sys.Label`), quoted names, texts, numbers, parameters,
comparison, `AND`, `OR`, `NOT`, `LIKE` with `ESCAPE`, `IN`, `IS NULL`, `EXISTS`, and the four operations with `%`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.servers.servicebus.entities.errors import InvalidArgument
from tests.servers.servicebus.entities.messages import Incoming

__all__ = ["SqlError", "compiled"]

Value = Callable[[Incoming], Any]
"""What a part of an expression is for a message; `None` is SQL's NULL, and unknown."""


class SqlError(InvalidArgument):
    """An expression that cannot be read, or not be decided for a message."""


SYSTEM = {
    "messageid": "message_id",
    "correlationid": "correlation_id",
    "sessionid": "session_id",
    "replytosessionid": "reply_to_session_id",
    "contenttype": "content_type",
    "label": "subject",
    "subject": "subject",
    "to": "to",
    "replyto": "reply_to",
    "partitionkey": "partition_key",
    "timetolive": "time_to_live",
    "scheduledenqueuetimeutc": "scheduled",
}

_token = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?)
      | '(?P<text>(?:[^']|'')*)'
      | (?P<name>(?:(?:sys|user)\s*\.\s*)?(?:\[(?:[^\]]|\]\])+\]|"(?:[^"]|"")+"|[A-Za-z_][\w$]*))
      | (?P<parameter>@[A-Za-z_]\w*)
      | (?P<sign><>|!=|<=|>=|[-=<>(),+*/%])
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_words = {"and", "or", "not", "like", "escape", "in", "is", "null", "true", "false", "exists"}
_compare = {
    "=": operator.eq, "<>": operator.ne, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_sums = {"+": operator.add, "-": operator.sub}
_products = {"*": operator.mul, "/": operator.truediv, "%": operator.mod}


def compiled(text: str, parameters: Mapping[str, Any]) -> Callable[[Incoming], bool | None]:
    """The expression as a function of a message. Raises `SqlError` if it cannot be read."""
    if len(text) > 1024:
        raise SqlError("SqlExpression: longer than 1024 characters")
    reader = _Reader(text, {name.lstrip("@").lower(): value for name, value in parameters.items()})
    value = reader.either()
    reader.end()
    return lambda message: _truth(value(message))


class _Reader:
    """Reads from the left, a level of binding in each method, loosest first."""

    def __init__(self, text: str, parameters: Mapping[str, Any]) -> None:
        self.text = text
        self.parameters = parameters
        self.tokens: list[tuple[str, str]] = list(_tokens(text))
        self.place = 0

    def at(self, *words: str) -> bool:
        kind, word = self.tokens[self.place]
        return kind in ("word", "sign") and word in words

    def next(self) -> tuple[str, str]:
        token = self.tokens[self.place]
        self.place += 1
        return token

    def accept(self, word: str) -> bool:
        if self.at(word):
            self.place += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise SqlError(f"SqlExpression {self.text!r}: {word!r} expected, not {self.tokens[self.place][1]!r}")

    def end(self) -> None:
        if self.tokens[self.place][0] != "end":
            raise SqlError(f"SqlExpression {self.text!r}: ends before {self.tokens[self.place][1]!r}")

    def either(self) -> Value:
        left = self.both()
        while self.accept("or"):
            left = _or(left, self.both())
        return left

    def both(self) -> Value:
        left = self.negated()
        while self.accept("and"):
            left = _and(left, self.negated())
        return left

    def negated(self) -> Value:
        if self.accept("not"):
            return _not(self.negated())
        return self.predicate()

    def predicate(self) -> Value:
        if self.accept("exists"):
            self.expect("(")
            found = self.name(self.next())
            self.expect(")")
            return lambda message: found(message) is not None
        left = self.sum()
        if self.accept("is"):
            wanted = not self.accept("not")
            self.expect("null")
            return lambda message: (left(message) is None) is wanted
        if self.at(*_compare):
            return _compared(_compare[self.next()[1]], left, self.sum())
        if not self.at("not", "like", "in"):
            return left
        negative = self.accept("not")
        decided = self.like(left) if self.accept("like") else self.among(left)
        return _not(decided) if negative else decided

    def like(self, left: Value) -> Value:
        pattern = self.sum()
        escape = self.sum() if self.accept("escape") else None
        return _like(left, pattern, escape)

    def among(self, left: Value) -> Value:
        self.expect("in")
        self.expect("(")
        equal = [_compared(operator.eq, left, self.sum())]
        while self.accept(","):
            equal.append(_compared(operator.eq, left, self.sum()))
        self.expect(")")
        value = equal[0]
        for other in equal[1:]:
            value = _or(value, other)
        return value

    def sum(self) -> Value:
        left = self.product()
        while self.at(*_sums):
            left = _calculated(_sums[self.next()[1]], left, self.product())
        return left

    def product(self) -> Value:
        left = self.signed()
        while self.at(*_products):
            left = _calculated(_products[self.next()[1]], left, self.signed())
        return left

    def signed(self) -> Value:
        if self.accept("-"):
            return _calculated(operator.sub, lambda message: 0, self.signed())
        if self.accept("+"):
            return self.signed()
        return self.atom()

    def atom(self) -> Value:
        if self.accept("("):
            value = self.either()
            self.expect(")")
            return value
        kind, word = token = self.next()
        if kind == "number":
            number = float(word) if re.search(r"[.eE]", word) else int(word)
            return lambda message: number
        if kind == "text":
            return lambda message: word
        if kind == "parameter":
            if word not in self.parameters:
                raise SqlError(f"SqlExpression {self.text!r}: the parameter @{word} has no value")
            return lambda message, value=self.parameters[word]: value  # type: ignore[misc]
        if kind == "word" and word in ("true", "false", "null"):
            constant = {"true": True, "false": False, "null": None}[word]
            return lambda message: constant
        return self.name(token)

    def name(self, token: tuple[str, str]) -> Value:
        kind, word = token
        if kind == "system":
            field = SYSTEM.get(word.lower())
            if field is None:
                raise SqlError(f"SqlExpression {self.text!r}: there is no sys.{word}")
            return operator.attrgetter(field)
        if kind != "name":
            raise SqlError(f"SqlExpression {self.text!r}: a value expected, not {word!r}")
        return lambda message: _property(message, word)


def _tokens(text: str) -> Any:
    place = 0
    stripped = text.rstrip()
    while place < len(stripped):
        found = _token.match(stripped, place)
        if found is None:
            raise SqlError(f"SqlExpression {text!r}: cannot be read from {stripped[place:].strip()[:20]!r} on")
        place = found.end()
        yield _token_of(found)
    yield "end", "the end"


def _token_of(found: re.Match[str]) -> tuple[str, str]:
    kind = str(found.lastgroup)
    word = found[kind]
    if kind == "text":
        return kind, word.replace("''", "'")
    if kind == "parameter":
        return kind, word[1:].lower()
    if kind != "name":
        return kind, word
    if word.lower() in _words:
        return "word", word.lower()
    scope, name = re.fullmatch(r"(?:(sys|user)\s*\.\s*)?(.*)", word, re.IGNORECASE | re.DOTALL).groups()  # type: ignore[union-attr]
    if name[0] == "[":
        name = name[1:-1].replace("]]", "]")
    elif name[0] == '"':
        name = name[1:-1].replace('""', '"')
    return ("system" if (scope or "").lower() == "sys" else "name"), name


def _property(message: Incoming, name: str) -> Any:
    there = message.application_properties
    if name in there:
        return there[name]
    lowered = name.lower()  # names of properties are compared without their case
    return next((value for key, value in there.items() if str(key).lower() == lowered), None)


def _truth(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise SqlError(f"SqlExpression: {value!r} is neither true nor false")


def _or(left: Value, right: Value) -> Value:
    def decide(message: Incoming) -> bool | None:
        first = _truth(left(message))
        if first is True:
            return True
        second = _truth(right(message))
        return True if second is True else None if first is None or second is None else False

    return decide


def _and(left: Value, right: Value) -> Value:
    return _not(_or(_not(left), _not(right)))


def _not(value: Value) -> Value:
    def decide(message: Incoming) -> bool | None:
        truth = _truth(value(message))
        return None if truth is None else not truth

    return decide


def _comparable(first: Any, second: Any) -> bool:
    numbers = (int, float)
    if isinstance(first, bool) or isinstance(second, bool):
        return isinstance(first, bool) and isinstance(second, bool)
    return (isinstance(first, numbers) and isinstance(second, numbers)) or type(first) is type(second)


def _compared(compare: Callable[[Any, Any], bool], left: Value, right: Value) -> Value:
    def decide(message: Incoming) -> bool | None:
        first, second = left(message), right(message)
        if first is None or second is None or not _comparable(first, second):
            return None  # what has another type is not less, nor more, nor other
        return bool(compare(first, second))

    return decide


def _calculated(calculate: Callable[[Any, Any], Any], left: Value, right: Value) -> Value:
    def decide(message: Incoming) -> Any:
        first, second = left(message), right(message)
        if first is None or second is None:
            return None
        try:
            return calculate(first, second)
        except (TypeError, ArithmeticError) as error:
            raise SqlError(f"SqlExpression: {error}") from None

    return decide


def _like(left: Value, pattern: Value, escape: Value | None) -> Value:
    def decide(message: Incoming) -> bool | None:
        text, wanted = left(message), pattern(message)
        if not isinstance(text, str) or not isinstance(wanted, str):
            return None
        mark = escape(message) if escape else None
        return re.fullmatch(_regular(wanted, mark), text, re.DOTALL) is not None

    return decide


def _regular(pattern: str, escape: str | None) -> str:
    """A pattern of LIKE as a regular expression: `%` is any text, `_` any letter."""
    parts = []
    letters = iter(pattern)
    for letter in letters:
        if letter == escape:
            parts.append(re.escape(next(letters, letter)))
        else:
            parts.append({"%": ".*", "_": "."}.get(letter) or re.escape(letter))
    return "".join(parts)
