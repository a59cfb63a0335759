"""The ledger tells what was lost, doubled and early, also after kills in the middle of a line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from camora.testing.ledger import Ledger, audit, read


def test_a_clean_run_is_clean(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number in range(5):
        with ledger.run(f"job-{number}", 1):
            pass
    ledger.close()
    found = audit(tmp_path, dispatched=[f"job-{number}" for number in range(5)])
    found.check()
    assert found.summary() == (
        "dispatched 5, faults 0, finished 5, dead 0, lost 0, duplicated 0, beside itself 0, early 0, strangers 0, "
        "interrupted 0, longest recovery 0.0 s"
    )


def test_what_never_finished_is_lost_unless_it_is_a_dead_letter(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.started("began", 1)
    found = audit(tmp_path, dispatched=["began", "dead", "never"], dead=["dead"], faults=2)
    assert found.lost == ("began", "never")
    assert (found.dead, found.interrupted, found.faults) == (1, 1, 2)
    with pytest.raises(AssertionError, match="lost: began, never"):
        found.check()
    ledger.close()


def test_running_twice_is_counted_and_at_the_same_time_is_worse(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    with first.run("after", 1):
        pass
    with second.run("after", 1):
        pass
    with first.run("beside", 1), second.run("beside", 1):
        pass
    found = audit(tmp_path, dispatched=["after", "beside"])
    assert found.duplicated == ("after", "beside")
    assert found.beside_itself == ("beside",)
    with pytest.raises(AssertionError, match="more than once"):
        found.check(duplicates=1)
    found.check(duplicates=2)
    first.close()
    second.close()


def test_early_starts_and_strangers_are_seen(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.run("soon", 1), ledger.run("stranger", 1):
        pass
    found = audit(tmp_path, dispatched=["soon"], due={"soon": 4_000_000_000_000})
    assert (found.early, found.strangers) == (("soon",), ("stranger",))
    ledger.close()


def test_a_raising_attempt_has_not_finished_and_its_retry_ends_the_gap(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(ValueError, match="no"), ledger.run("job", 1):
        raise ValueError("no")
    with ledger.run("job", 2):
        pass
    found = audit(tmp_path, dispatched=["job"])
    found.check()
    assert found.interrupted == 1
    assert found.longest_recovery > 0
    ledger.close()


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    os.write(ledger._file, b"\nstarted\tcut-o")
    with ledger.run("whole", 1):
        pass
    os.write(ledger._file, b"\nfinished\twhole\t2\t\xff\xfe")
    assert [(entry.kind, entry.job_id) for entry in read(tmp_path)] == [("started", "whole"), ("finished", "whole")]
    ledger.close()


def test_a_killed_process_leaves_its_lines(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from camora.testing.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "with ledger.run('done', 1): pass\n"
        "ledger.started('killed', 1)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    found = audit(tmp_path, dispatched=["done", "killed"], faults=1)
    assert (found.finished, found.lost, found.interrupted) == (1, ("killed",), 1)
