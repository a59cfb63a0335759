"""The page that compares Camora with other libraries: what it says of ours is code that runs on that page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
PARTS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
RUNS = re.sub(r"\s+", " ", " ".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
WORDS = ("camora ", "a function", "Camora(")
"""What begins so is told in words: commands of a shell, and URLs of servers."""


def rows(part: str) -> list[str]:
    found = [line.replace(r"\|", "¦") for line in part.splitlines() if line.startswith("|")]
    ours = [line.strip("|").split("|")[1] for line in found if "---" not in line]
    return [one.replace("¦", "|") for one in ours if one.strip() != "here"]


@pytest.mark.parametrize("part", PARTS)
def test_all_that_is_said_to_be_ours_runs(part: str) -> None:
    ours = [code for row in rows(PARTS[part]) for code in re.findall(r"`([^`]+)`", row)]
    assert len(ours) >= 10
    calls = [code for code in ours if "(" in code and not code.startswith(WORDS)]
    assert [code for code in calls if re.sub(r"\s+", " ", code) not in RUNS] == []
