"""Mistakes in a URL are told before anybody connects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from camora import Camora
from camora.errors import ConfigurationError

from tests import forked

WRONG = {
    "sslmode": ("postgresql://db/shop?sslmode=requirre", "sslmode=requirre: must be one of .*require"),
    "sslmode of psycopg": ("postgresql+psycopg://db/shop?sslmode=requirre", "sslmode=requirre: must be one of"),
    "target": ("postgresql://a,b/shop?target_session_attrs=readwrite", "must be one of any, read-write"),
    "pool_size": ("postgresql://db/shop?poolsize=3", "no setting 'poolsize'; did you mean 'pool_size'"),
    "prefix": ("postgresql://db/shop?prefx=a_", "did you mean 'prefix'"),
    "schema": ("postgresql://db/shop?scheme=jobs", "did you mean 'schema'"),
    "of MariaDB": ("mariadb://db/shop?poolsize=3", "did you mean 'pool_size'"),
    "charset": ("mariadb://db/shop?charset=latin1", "charset=latin1: Camora speaks utf8mb4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named(name: str) -> None:
    url, told = WRONG[name]
    with pytest.raises(ConfigurationError, match=told):
        Camora(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/shop?sslmode=verify-full&sslrootcert=/ca&application_name=shop&options=-c%20jit%3Doff",
        "postgresql://db/shop?target_session_attrs=read-write&krbsrvname=x&passfile=/p&tcp_user_timeout=5",
        "postgresql+psycopg://db/shop?keepalives_idle=1&client_encoding=utf8&service=shop&hostaddr=127.0.0.1",
        "mariadb://db/shop?charset=utf8mb4&ssl_ca=/ca&unix_socket=/run/socket",
    ],
)
def test_what_is_the_driver_s_is_left_to_it(url: str) -> None:
    Camora(url)


@pytest.mark.parametrize("name", ["sslmode", "pool_size", "charset"])
def test_the_check_of_settings_and_a_worker_answer_with_the_mistake(tmp_path: Path, name: str) -> None:
    url = WRONG[name][0]
    (tmp_path / "camora.toml").write_text(f'[broker]\nurl = "{url}"\n')
    option = url.partition("?")[2].partition("=")[0]
    for command in (["config", "check"], ["worker"]):
        found = forked.run(
            [sys.executable, "-m", "camora", *command],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert found.returncode == 2, found.stdout + found.stderr
        assert option in found.stdout + found.stderr
        assert "Traceback" not in found.stderr
