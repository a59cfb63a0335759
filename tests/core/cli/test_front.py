"""The front of the command line: help, version, mistyped words, an app that cannot be imported."""

from __future__ import annotations

from pathlib import Path

import pytest
from camora.cli.codes import MEANINGS
from camora.cli.main import _unknown
from camora.cli.table import COMMANDS

from .conftest import Run


def test_help_lists_every_command_of_the_core_and_of_plugins(process: Run) -> None:
    done = process("--help")
    assert done.returncode == 0
    for _, name, _, text in COMMANDS:
        assert f"  {name} " in done.stdout
        assert text in done.stdout
    assert "  sql  " in done.stdout


def test_commands_of_plugins_that_are_not_there() -> None:
    for name, package in (("workflow", "camora-workflows"), ("sql", "camora-sql")):
        text = str(_unknown(name, ["worker", "schedules"]))
        assert text.startswith(f"the command {name!r} comes with a plugin that is not there: pip install {package};")


def test_help_fits_a_narrow_terminal(camora: Run) -> None:
    assert max(map(len, camora("--help", COLUMNS="50").stdout.splitlines())) <= 50


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["wroker"], "there is no command 'wroker': did you mean 'worker'?"),
        (["nonsense"], "camora --help lists all commands"),
        (["--verison"], "there is no option '--verison': did you mean '--version'?"),
        (["--app", "tasks:app", "queues"], "--app goes behind the command: camora COMMAND --app"),
        (["queues", "puase", "mail"], "there is no 'puase': did you mean 'pause'?"),
        (["queues", "puase", "mail", "--yes"], "there is no 'puase': did you mean 'pause'?"),
        (["queues", "xyz"], "there is no 'xyz'; there are list, pause, "),
        (["queues", "--jsn"], "camora queues: no option '--jsn': did you mean '--json'?"),
        (["dispatch", "shop.tasks:report", "--quue", "x"], "no option '--quue': did you mean '--queue'?"),
        (["dispatch", "--quue=x", "shop.tasks:report", "1"], "no option '--quue': did you mean '--queue'?"),
        (["dispatch", "--queue", "x", "add", "1", "--xyzzy", "--", "--b"], "there is no option '--xyzzy'."),
        (["worker", "--conurrency", "4"], "no option '--conurrency': did you mean '--concurrency'?"),
        (["worker", "--concurrency"], "--concurrency"),
        (["worker", "tasks:app", "other"], "'other' is not expected here."),
        (["queues", "pause", "mail", "-z"], "there is no option '-z'."),
        (["dead", "requeue", "some", "--al"], "no option '--al': did you mean '--all'?"),
        (["schedules", "add", "key", "add", "--evry=1d"], "no option '--evry': did you mean '--every'?"),
        (["queues", "pause"], "requires an argument"),
        (["queues", "--app", "tasks"], "write module:attribute"),
        (["queues", "--app", "tasks:ap"], "has no 'ap'; did you mean 'app'?"),
        (["queues", "--app", "json:loads"], "is a function, not a Camora"),
        (["queues"], "which app? There is no camora.toml"),
        (["queues", "purge", "mail", "--app", "tasks:app"], "say --yes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_with_one_text_and_code_2(camora: Run, arguments: list[str], text: str) -> None:
    done = camora(*arguments)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "import tasks\ndef f():\n    return 1 / 0\nf()\n",
            "ZeroDivisionError: division by zero\n  broken.py, line 3: ",
        ),
        ("x = 1\ndef (\n", "SyntaxError: invalid syntax\n  broken.py, line 2: def ("),
        ("import json\njson.loads('[')\n", "line 2: json.loads('[')"),
        ("raise SystemExit('not today')\n", "SystemExit: not today"),
    ],
    ids=["exception", "syntax", "library", "exit"],
)
def test_an_error_in_the_user_s_module_is_told_with_its_place(
    camora: Run, folder: Path, source: str, text: str
) -> None:
    (folder / "broken.py").write_text(source)
    done = camora("queues", "--app", "broken:app")
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "camora/" not in done.stderr


def test_a_missing_import_is_told_with_its_place_however_deep(camora: Run, folder: Path) -> None:
    (folder / "outer.py").write_text("import inner\n")
    (folder / "inner.py").write_text("x = 1\nimport no_such_library\n")
    done = camora("queues", "--app", "outer:app")
    assert done.returncode == 2
    assert (
        "imports 'no_such_library', which is not installed\n  inner.py, line 2: import no_such_library" in done.stderr
    )


def test_head_may_close_the_pipe(camora: Run, folder: Path) -> None:
    import subprocess
    import sys

    command = f"{sys.executable} -m camora queues --app tasks:app --json | head -c 1"
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_the_front_page_says_what_exit_codes_mean(camora: Run) -> None:
    page = camora("--help").stdout
    for code, text in MEANINGS:
        assert f"\n  {code} " in page
        assert text.split(":")[0] in page.replace("\n               ", " ")


def test_help_takes_a_command(camora: Run) -> None:
    assert camora("help", "why").stdout == camora("why", "--help").stdout


def test_what_no_one_expected_is_told_masked_and_with_its_own_code(camora: Run, folder: Path) -> None:
    (folder / "strange.py").write_text(
        "from camora import hookimpl\nfrom camora.interfaces import Command\n"
        "def odd():\n    raise LookupError('redis://me:hunter2@host')\n"
        "@hookimpl\ndef camora_commands():\n    return [Command(name='odd', help='Odd.', load=lambda: odd)]\n"
    )
    done = camora("odd", CAMORA_PLUGINS="strange")
    assert done.returncode == 70
    assert "LookupError: redis://me:***@host" in done.stderr
    assert "strange.py" in done.stderr
    assert "hunter2" not in done.stderr


def test_an_app_that_reads_its_settings_itself_reads_those_that_were_named(camora: Run, folder: Path) -> None:
    (folder / "tasks.py").write_text("from camora import Camora\napp = Camora.from_toml()\n")
    settings = 'app = "tasks:app"\n[broker]\nurl = "sqlite:///{name}.db"\n'
    (folder / "camora.toml").write_text(settings.format(name="one"))
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "two.toml").write_text(
        settings.format(name="two") + '[profiles.prod.broker]\nurl = "sqlite:///three.db"\n'
    )
    for words, name in (
        ([], "one.db"),
        (["--config", "elsewhere/two.toml"], "two.db"),
        (["--config", "elsewhere/two.toml", "--profile", "prod"], "three.db"),
        (["--config", "elsewhere/two.toml", "--app", "tasks:app"], "two.db"),
    ):
        assert name in camora("doctor", *words).stdout
    done = camora("queues", "--config", "nowhere.toml")
    assert done.returncode == 2
    assert "nowhere.toml: cannot be read" in done.stderr
