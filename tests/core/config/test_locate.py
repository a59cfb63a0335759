"""The locator against `tomllib`: whatever the document, every key and element is where it says it is."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from typing import Any

from camora.config.locate import KeyPath, Position, locate
from hypothesis import example, given, settings
from hypothesis import strategies as st

EVERYTHING = '''# a comment with [header] and key = 1
app = "shop:app"   # behind a value
"quoted key" . 'lit.eral' = 'C:\\path # no comment'
"esc\\u0041\\"]" = 1979-05-27 07:32:00
text = """
[not.a.header]
key = "nor a key" \\""" """"
other = \'\'\'
x = [1, 2]\'\'\'\'\'
[ a . "b.c" ]
list = [ # comment ]
  1, [2, "]", {deep = {er = [3]}}], # ,
  \'\'\'
  , ]\'\'\',
]
inline = {x.y = 1, "z" = {}, w = [], v = {q = "}"}}
[[a."b.c".rows]]
n = 1
[a."b.c".rows.sub]
k = true
[[a."b.c".rows]]
[[a."b.c".rows.inner]]
m = 0x1F
[[a."b.c".rows.inner]]
[a]
after = -inf
'''


def everywhere(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from everywhere(item, (*path, key))


def offset(text: str, position: Position) -> int:
    lines = text.replace("\r\n", "\n").split("\n")
    return sum(len(line) + 1 for line in lines[: position.line - 1]) + position.column - 1


def at(data: Any, path: KeyPath) -> Any:
    for key in path:
        data = data[key]
    return data


def check_exact(text: str) -> None:
    """Each position is proved by an edit there, whose effect `tomllib` tells."""
    data = tomllib.loads(text)
    found = locate(text)
    assert set(found) == set(everywhere(data))
    plain = text.replace("\r\n", "\n")
    headers: set[int] = set()
    for path, position in found.items():
        begin = offset(text, position)
        value, last = at(data, path), path[-1]
        expected = copy.deepcopy(data)
        if isinstance(last, int):
            if found[*path[:-1], 0] == found[path[:-1]]:
                # A [[header]]: at its name, and another one for each element.
                assert key_at(plain, begin) == path[-2]
                assert plain[:begin].count("\n") not in headers
                headers.add(plain[:begin].count("\n"))
                continue
            at(expected, path[:-1]).insert(last, "inserted")
            edited = plain[:begin] + "'inserted', " + plain[begin:]
        elif isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
            # Mentioned in many places, perhaps: here at least is one of them.
            assert key_at(plain, begin) == last
            continue
        else:
            table = at(expected, path[:-1])
            table["renamed-key"] = table.pop(last)
            edited = plain[:begin] + "renamed-key" + plain[begin + token_length(plain, begin) :]
        assert same(tomllib.loads(edited), expected), (path, position)


def same(left: Any, right: Any) -> bool:
    return repr(sort(left)) == repr(sort(right))  # NaN included


def sort(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sort(value[key]) for key in sorted(value)}
    return [sort(item) for item in value] if isinstance(value, list) else value


def token_length(text: str, begin: int) -> int:
    for length in range(1, len(text) - begin + 1):
        token = text[begin : begin + length]
        behind = text[begin + length : begin + length + 1]
        if behind in (".", "=", "]", " ", "\t", "") and is_key(token):
            return length
    raise AssertionError(text[begin:])


def is_key(token: str) -> bool:
    try:
        return len(tomllib.loads(f"{token} = 0")) == 1 and "\n" not in token and token == token.strip(" \t#")
    except tomllib.TOMLDecodeError:
        return False


def key_at(text: str, begin: int) -> str:
    return next(iter(tomllib.loads(f"{text[begin : begin + token_length(text, begin)]} = 0")))


def test_every_notation_is_located() -> None:
    check_exact(EVERYTHING)
    found = locate(EVERYTHING)
    assert found["app",] == Position(2, 1)
    assert found["quoted key", "lit.eral"] == Position(3, 16)
    assert found["a", "b.c", "list", 1, 2, "deep", "er", 0] == Position(12, 30)
    assert found["a", "b.c", "rows", 1, "inner", 1] == Position(24, 3 + len('a."b.c".rows.'))
    assert found["a",] == Position(25, 2)


def test_windows_line_ends_and_a_document_without_a_last_newline() -> None:
    check_exact(EVERYTHING.replace("\n", "\r\n"))
    assert locate("[a]\r\nb=1") == {("a",): Position(1, 2), ("a", "b"): Position(2, 1)}
    assert locate("") == {}


# Random documents, in every notation there is.

BARE = st.text("abz09-_", min_size=1, max_size=4)
AWKWARD = st.text(st.sampled_from(list("ab .#=[]{},'\"\\é\n\t")), max_size=6)
KEYS = st.one_of(BARE, AWKWARD)
SCALARS = st.one_of(
    st.integers(-5, 5).map(str),
    st.sampled_from(["true", "1.5", "-inf", "nan", "1979-05-27 07:32:00", "07:32:00", "0xF", "1_000"]),
    AWKWARD.map(lambda text: _basic(text)),
    AWKWARD.map(lambda text: '"""' + _escaped(text, keep_newlines=True) + '"""'),
    st.text(st.sampled_from(list('ab #=[]{},"\\\n')), max_size=6).map(lambda text: f"'''{text}'''"),
    st.sampled_from(['""""quoted""""', '"""""two"""""', "''''lit''''", "'''''lit'''''"]),
)
SPACE = st.sampled_from(["", " ", "\t"])
BREAK = st.sampled_from(["", " ", "\n", ' # it\'s [a] "comment" = {\n', "\n\n  "])


def _escaped(text: str, *, keep_newlines: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if keep_newlines else text.replace("\n", "\\n").replace("\t", "\\t")


def _basic(text: str) -> str:
    return f'"{_escaped(text)}"'


@st.composite
def key_tokens(draw: st.DrawFn, key: str) -> str:
    ways = [_basic(key)]
    if key and all(character in "abz09-_" for character in key):
        ways.append(key)
    if "'" not in key and "\n" not in key:
        ways.append(f"'{key}'")
    return draw(st.sampled_from(ways))


@st.composite
def pairs(draw: st.DrawFn, depth: int) -> list[str]:
    """`key = value` of one table, dotted at times, no two at odds."""
    made = []
    for key in draw(st.lists(KEYS, max_size=3, unique=True)):
        token = draw(key_tokens(key))
        if draw(st.booleans()):
            for inner in draw(st.lists(KEYS, min_size=1, max_size=2, unique=True)):
                dotted = f"{token}{draw(SPACE)}.{draw(SPACE)}{draw(key_tokens(inner))}"
                made.append(f"{dotted}{draw(SPACE)}={draw(SPACE)}{draw(values(depth))}")
        else:
            made.append(f"{token}{draw(SPACE)}={draw(SPACE)}{draw(values(depth))}")
    return draw(st.permutations(made))


@st.composite
def values(draw: st.DrawFn, depth: int) -> str:
    kind = draw(st.sampled_from(["scalar", "array", "table"])) if depth else "scalar"
    if kind == "scalar":
        return draw(SCALARS)
    if kind == "table":
        return "{" + draw(SPACE) + f"{draw(SPACE)},{draw(SPACE)}".join(draw(pairs(depth - 1))) + draw(SPACE) + "}"
    items = [f"{draw(BREAK)}{draw(values(depth - 1))}{draw(BREAK)}" for _ in range(draw(st.integers(0, 3)))]
    return "[" + ",".join(items) + (draw(st.sampled_from(["", ",", ",\n"])) if items else draw(BREAK)) + "]"


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = [f"{draw(SPACE)}{pair}{draw(SPACE)}" for pair in draw(pairs(2))]
    for name in draw(st.lists(st.sampled_from(["t", "u", "v"]), unique=True)):
        own, inner = f"{name}!", draw(KEYS)
        token = f"{draw(SPACE)}{_basic(own)}{draw(SPACE)}"
        double = draw(st.booleans())
        for _ in range(draw(st.integers(1, 3)) if double else 1):
            lines.append(f"[[{token}]]{draw(SPACE)}# ]] = 1" if double else f"[{token}]")
            rows = draw(pairs(2))
            lines += rows
            taken = tomllib.loads("\n".join(rows))
            if inner not in taken:
                lines.append(f" [{token}.{draw(key_tokens(inner))}.x]")
                lines += draw(pairs(1))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n# end"]))


@settings(max_examples=50)  # each is edited at every key
@given(documents())
@example('"a" = [[[]]]\n')
@example('a = """\n"""""\nb = 1')
def test_random_documents_are_located_exactly(text: str) -> None:
    check_exact(text)
