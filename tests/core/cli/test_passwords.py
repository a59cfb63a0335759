"""No command shows a password: every one of them is run, good and failing, and all that it says is searched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests import forked

from .commands import WORDS, command_paths
from .conftest import Run

PASSWORD, TOKEN = "hunter2%21xyz", "s3cr3t-9"
SEARCHED = ("hunter2", "s3cr3t")
HERE = f"vault://me:{PASSWORD}@here/0?token={TOKEN}"
AWAY = HERE.replace("@here", "@away")

# Careless with its URL: it shows it, password and all, wherever it can.
PLUGIN = """
from urllib.parse import urlsplit
from camora import Provider, hookimpl

def make(made):
    from camora.errors import BrokerUnavailable
    from camora_sql.broker import SqlBroker

    class VaultBroker(SqlBroker):
        def __init__(self):
            super().__init__("sqlite:///vault.db")

        def __repr__(self):
            return f"VaultBroker({made.url!r})"

        async def open(self):
            if urlsplit(made.url).hostname == "away":
                try:
                    raise OSError(f"no route to {made.url}")
                except OSError as error:
                    raise BrokerUnavailable(f"{made.url} cannot be reached: {error}") from error
            await super().open()

        def twin(self):
            return VaultBroker()

    return VaultBroker()

@hookimpl
def camora_brokers():
    return [Provider("vault", make, schemes=("vault",))]
"""

TASKS = """
import logging
from camora import Camora
app = {app}

@app.task(name="add", queue="sums")
async def add(x: int, y: int) -> int:
    return x + y

@app.task(name="connect", queue="mail")
async def connect(url: str) -> None:
    raise ConnectionError(f"cannot connect to {{url}}")
"""

FROM_TOML = TASKS.format(app="Camora.from_toml()")
SETTINGS = 'app = "tasks:app"\n[broker]\n'


@attrs.frozen
class SetUp:
    """Files and variables that give the URL in one way; `works` when commands can do their work with it."""

    name: str
    works: bool = False
    settings: str = ""
    tasks: str = FROM_TOML
    variables: dict[str, str] = attrs.field(factory=dict)

    @property
    def share(self) -> int:
        """It tries one command of so many; those beside it try the others.

        The URL in the file is shown to all commands. Each of them sees one of the three other places, too, and fails by
        two of the fourteen mistakes: where a URL comes from, and what is wrong with it, is found in one place for all.
        """
        return 7 if not self.works else 1 if self.settings.startswith(SETTINGS + f'url = "{HERE}"') else 3


SET_UPS = [
    SetUp("in the file", True, f'{SETTINGS}url = "{HERE}"\n'),
    SetUp("in a variable", True, 'app = "tasks:app"\n', variables={"CAMORA_BROKER__URL": HERE}),
    SetUp("substituted", True, f'{SETTINGS}url = "${{VAULT}}"\n', variables={"VAULT": HERE}),
    SetUp("in code", True, 'app = "tasks:app"\n', TASKS.format(app=f"Camora({HERE!r})")),
    SetUp("away, in the file", False, f'{SETTINGS}url = "{AWAY}"\n'),
    SetUp("away, in a variable", False, 'app = "tasks:app"\n', variables={"CAMORA_BROKER__URL": AWAY}),
    SetUp("away, in code", False, 'app = "tasks:app"\n', TASKS.format(app=f"Camora({AWAY!r})")),
    SetUp("of no plugin", False, f'{SETTINGS}url = "{HERE.replace("vault", "vualt")}"\n'),
    SetUp("of no plugin, in code", False, 'app = "tasks:app"\n', TASKS.format(app=f"Camora('vualt{HERE[5:]}')")),
    SetUp("of no plugin, in a variable", False, 'app = "tasks:app"\n', variables={"CAMORA_BROKER__URL": f"x{HERE}"}),
    SetUp("mistyped", False, f'{SETTINGS}url = "{HERE.replace("://", "//")}"\n'),
    SetUp("mistyped, in code", False, 'app = "tasks:app"\n', TASKS.format(app=f"Camora('me:{PASSWORD}@here')")),
    SetUp("in a broken line", False, f'{SETTINGS}url = "{HERE}\n'),
    SetUp("beside a mistake", False, f'{SETTINGS}url = "{HERE}"\nurll = "{HERE}"\n[worker]\nlease = "{HERE}"\n'),
    SetUp("as a wrong option", False, f'{SETTINGS}url = "sqlite:///x.db?password={TOKEN}"\n'),
    SetUp("where a number goes", False, 'app = "tasks:app"\n', variables={"CAMORA_WORKER__LEASE": HERE}),
    SetUp("in a module that breaks", False, 'app = "tasks:app"\n', f"raise LookupError('{HERE}')\n"),
    SetUp("in a module with a wrong line", False, 'app = "tasks:app"\n', f"app = Camora('{HERE}'\n(\n"),
]

ELSEWHERE = {"dev", "worker", "scheduler", "shell", "demo"}
"""Those that are run in processes of their own, or know no app."""


def leaks(text: str) -> list[str]:
    """The lines that show a secret."""
    return [line for line in text.splitlines() if any(secret in line for secret in SEARCHED)]


def laid_out(folder: Path, set_up: SetUp) -> dict[str, str]:
    """Write the files; returns the variables."""
    (folder / "vault.py").write_text(PLUGIN)
    (folder / "tasks.py").write_text(set_up.tasks)
    (folder / "camora.toml").write_text(set_up.settings)
    return {"CAMORA_PLUGINS": "vault", **set_up.variables}


def all_commands() -> Iterator[list[str]]:
    for path, app in command_paths():
        if path in ELSEWHERE:
            continue
        words = [*path.split(), *WORDS[path]]
        yield words
        options = {name for argument in app.assemble_argument_collection() for name in argument.names}
        if "--json" in options:
            yield [*words, "--json"]
        if path in ("queues", "dispatch", "doctor"):  # the others find their app in the same way
            yield [*words, "--app", "tasks:app"]


def test_every_command_is_searched() -> None:
    assert {path for path, _ in command_paths()} - set(WORDS) == set()


@pytest.mark.parametrize("set_up", SET_UPS, ids=lambda set_up: set_up.name)
def test_no_command_shows_a_password(camora: Run, folder: Path, set_up: SetUp) -> None:
    variables = laid_out(folder, set_up)
    wrong = []
    for number, words in enumerate(all_commands()):
        if number % set_up.share != SET_UPS.index(set_up) % set_up.share:
            continue
        done = camora(*words, **variables)
        shown = leaks(done.stdout + done.stderr)
        if shown or done.returncode not in expected(words, set_up):
            wrong.append((words, done.returncode, shown or done.stderr[-300:]))
    assert not wrong, "\n".join(map(str, wrong))


def expected(words: list[str], set_up: SetUp) -> tuple[int, ...]:
    """The codes with which a command may end; that all fail, or none does, would make the search worth little."""
    # What is signalled has been cancelled just before.
    if words[0] not in ("queues", "dispatch", "doctor", "dead", "job", "why") or {"prune", "signal"} & set(words):
        return (0, 1, 2, 3)
    return (0, 3) if set_up.works else (1, 2)


@pytest.mark.parametrize("set_up", [set_up for set_up in SET_UPS if "away" in set_up.name], ids=lambda s: s.name)
def test_the_rest_of_the_url_is_shown(camora: Run, folder: Path, set_up: SetUp) -> None:
    variables = laid_out(folder, set_up)
    assert "vault://me:***@away/0?token=***" in camora("queues", **variables).stderr


def test_passwords_in_arguments_errors_and_dead_letters(camora: Run, folder: Path) -> None:
    variables = laid_out(folder, SET_UPS[0])
    job = camora("dispatch", "connect", f"url=redis://you:{PASSWORD}@there/1", **variables).stdout.strip()
    assert leaks(camora("job", "show", job, "--json", **variables).stdout) == []
    assert camora("worker", "--burst", "--log-level", "error", **variables).returncode == 0
    for words in (["dead"], ["dead", "show", job], ["job", "show", job], ["why", job]):
        for more in ([], ["--json"]):
            done = camora(*words, *more, COLUMNS="300", **variables)
            assert leaks(done.stdout + done.stderr) == [], words
            assert "cannot connect to" in done.stdout
            assert "redis://you:***@there/1" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["plugins", "check", "--url", HERE],
        ["plugins", "check", "--url", HERE, "--json"],
        ["plugins", "check", "--url", f"x{HERE}"],
        ["plugins", "check", f"--urll={HERE}"],
        ["queues", HERE],
        ["queues", "--app", HERE],
        ["queues", "--config", HERE],
        ["queues", "--profile", HERE],
        ["queues", f"--brokr={HERE}"],
        [HERE],
        ["why", HERE],
        ["why", HERE, "--json"],
        ["dead", "requeue", HERE],
        ["dispatch", HERE],
        ["dispatch", "add", HERE],
        ["dispatch", "add", "1", "2", "--delay", HERE],
        ["dispatch", "add", "1", "2", "--eta", HERE],
        ["dispatch", "add", "1", "2", "--priority", HERE],
        ["job", "prune", "--older-than", HERE],
        ["queues", "pause", HERE],
        ["worker", "--processes", HERE],
        ["worker", "--health", HERE, "--burst"],
        ["sql", "migrate", "--url", HERE],
        ["sql", "status", "--url", f"sqlite:///x.db?password={TOKEN}"],
    ],
    ids=lambda words: " ".join(words).replace(PASSWORD, "PASSWORD").replace(TOKEN, "TOKEN"),
)
def test_what_is_said_on_the_command_line_is_not_repeated_with_its_password(
    camora: Run, folder: Path, words: list[str]
) -> None:
    done = camora(*words, **laid_out(folder, SET_UPS[0]))
    assert leaks(done.stdout + done.stderr) == []
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["here", "away"])
@pytest.mark.parametrize("shape", ["text", "json"])
def test_the_log_of_a_worker_shows_none(folder: Path, process: Run, host: str, shape: str) -> None:
    url = HERE if host == "here" else AWAY
    variables = laid_out(folder, SetUp("", settings=f'{SETTINGS}url = "{url}"\n'))  # its broker shows its URL as it is
    arguments = ["--log-level", "debug", "--log-format", shape]
    process("dispatch", "add", "1", "2", **variables)
    process("dispatch", "connect", f"url=redis://you:{PASSWORD}@there/1", **variables)
    if host == "here":
        done = process("worker", "--burst", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        assert "cannot connect to redis://you:***@" in said
    else:
        said = until(folder, "worker", *arguments, text="cannot be reached", **variables)
    assert leaks(said) == []
    assert "vault://me:***@" in said


def test_the_shell_shows_none(folder: Path) -> None:
    variables = laid_out(folder, SET_UPS[0])
    running = started(folder, "shell", **variables)
    out, err = running.communicate("await add.dispatch(1, 2)\n", timeout=60)
    assert leaks(out + err) == []
    assert "VaultBroker('vault://me:***@here" in err  # the banner


def started(folder: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    import os

    return forked.Popen(
        [sys.executable, "-m", "camora", *words],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(folder: Path, *words: str, text: str, **variables: str) -> str:
    """All that a command says, ended as soon as it has said this."""
    running = started(folder, *words, **variables)
    said = ""
    with running:
        assert running.stderr is not None
        for line in running.stderr:
            said += line
            if text in line:
                break
        running.terminate()
        out, err = running.communicate(timeout=60)
    return said + out + err
