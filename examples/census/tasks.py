"""The tasks of the census: one job per source file, and what it finds there."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import tokenize
from pathlib import Path

import attrs
from camora import Camora, RetryPolicy

app = Camora(os.environ.get("CENSUS_BROKER", "sqlite:///census.db"))


@attrs.frozen
class Measured:
    """What one source file holds; `size` is bytes."""

    path: str
    package: str
    size: int
    lines: int
    code: int
    comments: int
    functions: int
    classes: int
    deepest: int
    sha256: str


def depth(node: ast.AST) -> int:
    """Levels of nested statements, found without recursion: some test data nests very deeply."""
    deepest, waiting = 0, [(node, 0)]
    while waiting:
        current, level = waiting.pop()
        deepest = max(deepest, level)
        inner = level + isinstance(current, ast.stmt)
        waiting.extend((child, inner) for child in ast.iter_child_nodes(current))
    return deepest


@app.task(
    execution="process",
    timeout=60,
    # A file that cannot be read today cannot be read in a second either; but a census has to make sure.
    retry_policy=RetryPolicy(max_tries=3, delay=0.2, mode="exponential"),
)
def measure(root: Path, path: Path) -> Measured:
    """Parse, measure and hash one file. Raises what reading and parsing raise."""
    data = (root / path).read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    tree = ast.parse(data, filename=str(path))
    text = data.decode(encoding)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    nodes = list(ast.walk(tree))
    return Measured(
        path=str(path),
        package=path.parts[0].removesuffix(".py") if len(path.parts) > 1 else "(modules)",
        size=len(data),
        lines=text.count("\n"),
        code=len({token.start[0] for token in tokens if token.type not in silent}),
        comments=sum(token.type == tokenize.COMMENT for token in tokens),
        functions=sum(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        deepest=depth(tree),
        sha256=hashlib.sha256(data).hexdigest(),
    )
