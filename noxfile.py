"""Every check and chore, each in an environment of its own. `nox` runs tests, lint, types and docs."""

from __future__ import annotations

import json
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
PACKAGES = [
    "./core",
    "./plugins/camora_amqp",
    "./plugins/camora_django",
    "./plugins/camora_pydantic",
    "./plugins/camora_redis",
    "./plugins/camora_servicebus",
    "./plugins/camora_sql",
    "./plugins/camora_workflows",
]


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, name)


def install(session: nox.Session, *groups: str) -> None:
    session.install(*PACKAGES, *(name for which in groups for name in group(which)))


def requirements(folder: str) -> list[str]:
    """What a distribution asks for: named to the installer as well, so that "lowest" means these."""
    declared: list[str] = nox.project.load_toml(f"{folder}/pyproject.toml")["project"]["dependencies"]
    return [name for name in declared if not name.startswith("camora")]


@nox.session
def demo(session: nox.Session) -> None:
    """Run the example application: a census of the standard library."""
    install(session)
    session.run("python", "examples/census/census.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole suite."""
    install(session, "test", "lint")
    # Much of it waits for real processes; the blocks of a document, and the tests of a module, stay in order. What is
    # collected last is short, so that no process works on a long module while the others have nothing left.
    # They start hundreds of processes, none of which is to compile what it imports again, whatever this shell asks for.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    cache = Path(session.virtualenv.location) / "pytest-cache"
    pytest = ("pytest", "-o", f"cache_dir={cache}")
    beside = ("--cache-clear", "--numprocesses=5", "--dist=loadfile", "--no-loadscope-reorder")
    try:
        session.run(*pytest, *beside, *session.posargs)
    except CommandFailed as error:
        alone = failed(cache)
        if error.reason != "Returned code 1" or not 0 < len(alone) <= UNSTEADY:
            raise
        session.warn(f"Failed beside others, and run once more alone: {', '.join(alone)}")
        session.run(*pytest, *alone)


UNSTEADY = 8
"""So many tests may fail while dozens of servers share the machine; they must pass when they have it to themselves."""


def failed(cache: Path) -> list[str]:
    """What failed last: tests, and whole documents, whose blocks build on each other."""
    last = cache / "v" / "cache" / "lastfailed"
    names = json.loads(last.read_text()) if last.exists() else {}
    return sorted({name.split("::")[0] if ".md::" in name else name for name in names})


@nox.session
def explore(session: nox.Session) -> None:
    """Look for what the suite does not meet: its tests of properties and its hunts, with new examples each time."""
    install(session, "test", "lint")
    wanted = session.posargs or ("-m", "hypothesis", "tests")
    session.run("pytest", "--hypothesis-profile=explore", "--numprocesses=2", "--dist=loadfile", *wanted)


@nox.session
@nox.parametrize("python,release", [("3.11", "5.2"), ("3.12", "6.0")], ids=["5.2", "6.0"])
def django(session: nox.Session, release: str) -> None:
    """Run the tests of the Django project: on 5.2 LTS with the backport of the Tasks interface, and on 6."""
    install(session, "test")
    session.install(f"django=={release}.*")
    session.run("pytest", "--numprocesses=2", "--dist=loadfile", "tests/django", "docs/django.md", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and the direction of imports."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy on all of it, pyright on what users see."""
    install(session, "types", "test")
    session.run(
        "mypy", "core/src", *(f"{package}/src" for package in PACKAGES[1:]), "tests/typing", "tests/pydantic/typed"
    )
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Run every block of the README and the docs."""
    install(session, "test")
    plugins = ("plugins/camora_pydantic/README.md", "plugins/camora_workflows/README.md")
    session.run("pytest", "README.md", "docs", *plugins, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, beside the peers."""
    install(session)
    session.install("-r", "benchmarks/requirements.txt")
    session.run("python", "-m", "benchmarks", *(session.posargs or ["run", "--quick"]))


@nox.session
def build(session: nox.Session) -> None:
    """Build wheels and source distributions into dist/."""
    session.install("build")
    for package in PACKAGES:
        session.run("python", "-m", "build", "--outdir", "dist", package)


@nox.session
@nox.parametrize("resolution", ["highest", "lowest-direct"])
def isolation(session: nox.Session, resolution: str) -> None:
    """Install built wheels, the core plus one plugin alone, with the newest and the oldest allowed versions."""
    wheels = Path(session.create_tmp()) / "wheels"
    session.install("build")
    for package in PACKAGES:
        session.run("python", "-m", "build", "--wheel", "--outdir", str(wheels), package, silent=True)
    check = ROOT / "tests" / "architecture" / "isolated.py"
    needs = {"camora_django": ["camora_sql"]}
    for plugin in (
        None,
        "camora_amqp",
        "camora_django",
        "camora_pydantic",
        "camora_redis",
        "camora_servicebus",
        "camora_sql",
        "camora_workflows",
    ):
        environment = Path(session.create_tmp()) / f"{plugin or 'core'}-{resolution}"
        session.run("uv", "venv", "--clear", str(environment), external=True)
        python = environment / "bin" / "python"
        chosen = [str(next(wheels.glob("camora-*.whl"))), *requirements("core")]
        if plugin:
            for name in (plugin, *needs.get(plugin, [])):
                chosen += [str(next(wheels.glob(f"{name}-*.whl"))), *requirements(f"plugins/{name}")]
        session.run("uv", "pip", "install", "--python", str(python), "--resolution", resolution, *chosen, external=True)
        session.run(str(python), str(check), *([plugin] if plugin else []), external=True)
