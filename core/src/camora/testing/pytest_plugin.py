"""Fixtures for pytest. Found by pytest itself wherever camora is installed; imports nothing until one is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from camora.app import Camora
    from camora.testing.dispatched import Dispatched
    from camora.testing.simulation import Simulation

__all__ = ["camora_app", "camora_dispatched", "camora_seed", "camora_simulate"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--camora-seed`."""
    parser.getgroup("camora").addoption(
        "--camora-seed", type=int, default=0, metavar="N", help="seed of camora_worker and camora_simulate (default: 0)"
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Offer `camora_worker` in the way of whichever plugin runs async tests here, if one does."""
    from importlib import import_module

    kind = "asyncio" if config.pluginmanager.hasplugin("asyncio") else "anyio"
    if config.pluginmanager.hasplugin(kind):
        config.pluginmanager.register(import_module(f"camora.testing.fixtures.{kind}"), f"camora-{kind}")


@pytest.fixture
def camora_app() -> Camora:
    """The app under test: define a fixture of this name in your conftest.py."""
    raise pytest.UsageError(
        "camora's fixtures need your app: define a fixture camora_app in conftest.py that returns it, for example\n"
        "    @pytest.fixture\n    def camora_app():\n        from shop.tasks import app\n        return app"
    )


@pytest.fixture
def camora_seed(pytestconfig: pytest.Config) -> int:
    """The seed, as `--camora-seed` says; override it to vary it by test."""
    seed: int = pytestconfig.getoption("camora_seed")
    return seed


@pytest.fixture
def camora_dispatched(camora_app: Camora, camora_seed: int) -> Iterator[Dispatched]:
    """What the test dispatches, noted and not run; for sync and async tests. Not together with `camora_worker`."""
    from camora.testing.recording import record

    with record(camora_app, seed=camora_seed) as dispatched:
        yield dispatched


@pytest.fixture
def camora_simulate(camora_app: Camora, camora_seed: int) -> Callable[..., Simulation]:
    """`simulate` with the app and the seed filled in; for tests without an event loop."""
    from functools import partial

    from camora.testing.simulation import simulate

    return partial(simulate, camora_app, seed=camora_seed)
