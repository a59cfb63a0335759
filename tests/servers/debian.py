"""Servers out of Debian's packages, unpacked into a folder of the user's cache: nothing is installed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["obtainable", "unpacked"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "camora-tests"


def obtainable() -> bool:
    """Whether this machine has the tools that fetch packages."""
    return all(shutil.which(tool) for tool in ("apt-get", "dpkg"))


def unpacked(package: str, program: str | None = None) -> tuple[Path, Path] | None:
    """A program of this package, and the folder of its libraries; None where there is no such package.

    Its path in the package is `program`, if it is not the package's own name among the programs.

    It is fetched once for all processes and runs, with the package tools as this machine has them set up.
    """
    place = CACHE / package
    if not place.exists():
        if not obtainable():
            return None
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{package}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists() and not _fetch(package, place):
                return None
    libraries = next((path.parent for path in sorted(place.glob("usr/lib/*/*.so*"))), place / "usr" / "lib")
    path = place / (program or f"usr/bin/{package}")
    return (path, libraries) if path.exists() else None


def _fetch(package: str, place: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        lists = folder / "lists"
        # First what the machine knows. One whose lists were never updated knows no package: then lists of our own.
        for options in ([], ["-o", f"Dir::State::Lists={lists}"]):
            try:
                if options:
                    (lists / "partial").mkdir(parents=True)
                    _apt("update", options, folder)
                _apt("download", [*options, *_to_download(package, options, folder)], folder)
                for deb in sorted(folder.glob("*.deb")):
                    subprocess.run(["dpkg", "-x", deb, folder / "root"], check=True, capture_output=True, timeout=60)
                (folder / "root").rename(place)
            except (OSError, subprocess.SubprocessError):
                continue
            return True
    return False


def _to_download(package: str, options: list[str], folder: Path) -> list[str]:
    """The package, and what it needs that this machine lacks."""
    told = _apt("install", ["--simulate", "--no-install-recommends", *options, package], folder)
    return re.findall(r"^Inst (\S+)", told, re.MULTILINE)


def _apt(command: str, arguments: list[str], folder: Path) -> str:
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []  # the cache is not readable to others
    done = subprocess.run(
        ["apt-get", "--quiet", *sandbox, command, *arguments],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout
