"""A stranger's plugin sits the exam with eleven lines, plain pytest, and pytest-asyncio as it comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAM = """\
import pytest

from camora.builtin.memory import MemoryBroker
from camora.testing.conformance import BrokerConformance


class TestMine(BrokerConformance):
    lease = 0.3

    @pytest.fixture
    def broker_factory(self):
        return MemoryBroker
"""

LOSSY = """

class Lossy(MemoryBroker):
    async def publish(self, envelopes):
        return await super().publish(envelopes[:1])
"""

FORGETFUL = """

class TestForgetful(BrokerConformance):
    pass
"""


def _sit(folder: Path, exam: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(exam)
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_eleven_lines_are_enough(tmp_path: Path) -> None:
    assert len(EXAM.splitlines()) == 12, "the blank lines that a formatter wants included"
    answer = _sit(tmp_path, EXAM, "-k", "order or empty or twin or unsupported")
    assert answer.returncode == 0, answer.stdout
    assert " passed" in answer.stdout
    assert "warning" not in answer.stdout


def test_a_failing_exam_explains_itself(tmp_path: Path) -> None:
    exam = EXAM.replace("return MemoryBroker", "return Lossy") + LOSSY + FORGETFUL
    answer = _sit(tmp_path, exam, "-k", "messages_arrive_in_the_order")
    assert answer.returncode == 1
    assert "assert [" in answer.stdout, "asserts of the suites must be rewritten"
    assert "TestForgetful must override the fixture broker_factory" in answer.stdout
