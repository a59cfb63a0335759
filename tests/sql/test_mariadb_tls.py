"""MariaDB behind TLS: the URL says whom to trust, and a stranger is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, ConfigurationError
from camora_sql.blocking import BlockingSession
from camora_sql.store import Store

from tests.servers.mariadb import MariadbServer, private_mariadb
from tests.servers.tls import Certificates, new_certificates

__all__ = ["private_mariadb"]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return new_certificates(tmp_path)


@pytest.fixture
def server(private_mariadb: Callable[..., MariadbServer], certificates: Certificates) -> MariadbServer:
    return private_mariadb(
        files={
            "cert.pem": certificates.server_certificate,
            "key.pem": certificates.server_key,
            "ca.pem": certificates.authority,
        },
        settings=["ssl-cert={data}/cert.pem", "ssl-key={data}/key.pem", "ssl-ca={data}/ca.pem"],
    )


def cipher(url: str) -> str:
    session = BlockingSession(Store(url))
    try:
        [(_, name)] = session.read(lambda session: session.driver.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))
    finally:
        session.close()
    return str(name)


def test_the_url_asks_for_tls(server: MariadbServer, certificates: Certificates) -> None:
    assert cipher(server.url) == ""
    assert cipher(f"{server.url}?ssl=true")
    assert cipher(f"{server.url}?ssl_ca={certificates.authority}")
    assert cipher(f"{server.url}?ssl_ca={certificates.authority}&ssl_cert={certificates.certificate}"
                  f"&ssl_key={certificates.key}")  # fmt: skip


async def test_a_stranger_is_not_trusted(server: MariadbServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = new_certificates(tmp_path / "other")
    broker = Camora(f"{server.url}?ssl_ca={other.authority}").broker
    with pytest.raises(BrokerUnavailable, match="certificate"):
        await broker.open()
    await broker.close()


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    broker = Camora(f"mariadb://127.0.0.1:1/camora?ssl_ca={tmp_path}/none.pem").broker
    with pytest.raises(ConfigurationError, match=r"ssl_ca: .*none\.pem is no file"):
        await broker.open()
    await broker.close()
