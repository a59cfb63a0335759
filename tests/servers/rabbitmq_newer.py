"""RabbitMQ of a newer Debian, unpacked with the C library that it needs: nothing is installed."""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from tests.servers.debian import CACHE, obtainable
from tests.servers.rabbitmq import RabbitBinary, RabbitServer

__all__ = ["find_newer", "fresh_url", "missing"]

_RELEASE = "trixie"  # RabbitMQ 4.0
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ERLANG = ("asn1", "base", "crypto", "eldap", "inets", "mnesia", "os-mon", "parsetools", "public-key", "runtime-tools",
           "ssl", "syntax-tools", "tools", "xmerl")  # fmt: skip
_LIBRARIES = ("libc6", "libcap2", "libgcc-s1", "libssl3t64", "libstdc++6", "libsystemd0", "libtinfo6", "libzstd1",
              "zlib1g")  # fmt: skip
_PACKAGES = ("rabbitmq-server", *(f"erlang-{name}" for name in _ERLANG), *_LIBRARIES)
_next = itertools.count()


def missing() -> str:
    """Why there is none here; empty if there is one. It is one more, and no test needs it."""
    return "" if find_newer() else f"no newer RabbitMQ: Debian's packages of {_RELEASE} cannot be had"


def fresh_url() -> str:
    """A URL of no queues yet, in a server that all tests of this process share."""
    return f"{_shared().url}?prefix=t{next(_next)}."


@functools.cache
def _shared() -> RabbitServer:
    found = find_newer()
    assert found is not None, missing()
    server = RabbitServer(found).start()
    server.forget_queues("^t[0-9](?!.*camora[.](?!dead))")
    return server


@functools.cache
def find_newer() -> RabbitBinary | None:
    """The one of that release, fetched once for all processes and runs; None where this machine cannot fetch it."""
    place = CACHE / f"rabbitmq-server-{_RELEASE}"
    if not place.exists():
        if not obtainable():
            return None
        CACHE.mkdir(parents=True, exist_ok=True)
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists() and not _fetch(place):
                return None
    home = next(place.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*"))
    version = re.findall(r"\d+", home.name)
    return RabbitBinary(home, place / "usr" / "lib" / "erlang", tuple(map(int, version)))


def _fetch(place: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache").mkdir()
        try:
            (folder / "sources.list").write_text(_source())
            options = [
                f"Dir::Etc::SourceList={folder / 'sources.list'}", "Dir::Etc::SourceParts=/nonexistent",
                f"Dir::State::Lists={folder / 'lists'}", f"Dir::Cache={folder / 'cache'}", "APT::Sandbox::User=root",
            ]  # fmt: skip
            _apt(folder, options, "update")
            _apt(folder, options, "download", *_PACKAGES)
            for deb in sorted(folder.glob("*.deb")):
                subprocess.run(["dpkg", "-x", deb, folder / "root"], check=True, capture_output=True, timeout=60)
            _wrap(folder / "root", place)
            (folder / "root").rename(place)
        except (OSError, LookupError, subprocess.SubprocessError):
            return False
    return True


def _source() -> str:
    """Where this machine has Debian's packages from, for that release."""
    form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
    told = _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    for line in told.splitlines():
        uri, release, component, origin = line.split("|")
        if origin == "Debian" and component == "main" and re.fullmatch(r"[a-z]+", release):
            signed = f"[signed-by={_KEYS}] " if _KEYS.exists() else ""
            return f"deb {signed}{uri} {_RELEASE} main\n"
    raise LookupError("this machine has no packages of Debian's")


def _wrap(root: Path, place: Path) -> None:
    """Run Erlang's programs with the C library they were built for, from where they are going to lie."""
    loader = place / "usr" / "lib64" / "ld-linux-x86-64.so.2"
    if not (root / loader.relative_to(place)).exists():
        raise LookupError("not for this machine")
    libraries = place / "usr" / "lib" / "x86_64-linux-gnu"
    for path in sorted((root / "usr" / "lib" / "erlang").glob("**/bin/*")):
        if path.is_symlink() or not path.is_file() or not path.read_bytes().startswith(b"\x7fELF"):
            continue
        true = path.rename(path.with_name(f"{path.name}.true"))
        words = [loader, "--library-path", libraries, "--argv0", place / path.relative_to(root)]
        command = shlex.join([*map(str, words), str(place / true.relative_to(root))])
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)


def _apt(folder: Path, options: list[str], *command: str) -> None:
    _run(["apt-get", "--quiet", *(word for option in options for word in ("-o", option)), *command], folder)


def _run(command: list[str], folder: Path | None = None) -> str:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=True, timeout=300,
    ).stdout  # fmt: skip
