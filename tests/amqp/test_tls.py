"""TLS: an authority of one's own, certificates of clients, and what is said when something does not fit."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import trustme
from camora import Camora
from camora.errors import CamoraError, ConfigurationError
from camora_amqp.broker import AmqpBroker
from camora_amqp.link import connect
from camora_amqp.store import Store

from tests.amqp.talking import LOOPS
from tests.end_to_end.processes import until
from tests.servers.rabbitmq import RabbitServer, need, shared


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    """Takes clients with a certificate alone, whose subject may stand for a user's name."""
    settings = ["auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL"]
    plugins = ["rabbitmq_auth_mechanism_ssl"]
    with RabbitServer(need(), tls="mutual", settings=settings, plugins=plugins) as made:
        yield made


def url_of(server: RabbitServer, *, login: str = "guest:guest@", host: str = "", **options: Any) -> str:
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in options.items())
    return f"amqps://{login}{host or server.host}:{server.port}/?timeout=5&{query}"


def files(server: RabbitServer) -> dict[str, Any]:
    assert server.certificates is not None
    there = server.certificates
    return {"cafile": there.authority, "certfile": there.certificate, "keyfile": there.key}


async def failure_of(url: str) -> CamoraError:
    broker = AmqpBroker(url)
    with pytest.raises(CamoraError) as caught:
        await broker.open()
    await broker.close()
    gc.collect()
    return caught.value


async def test_a_job_goes_there_and_its_result_comes_back(server: RabbitServer) -> None:
    app = Camora(url_of(server, prefix="tls.", **files(server)))

    @app.task
    async def double(number: int, text: str) -> int:
        return 2 * number

    async with app, app.worker():
        assert await (await double.dispatch(21, "x" * 1_000_000)).result(timeout=60) == 42
    async with asyncio.timeout(60):  # TLS says goodbye in some turns of the loop
        while any(one.raddr and one.raddr.port == server.port for one in psutil.Process().net_connections()):
            await asyncio.sleep(0.01)
    gc.collect()


@pytest.mark.parametrize("loop", list(LOOPS))
def test_it_leaves_nothing_in_any_loop(server: RabbitServer, loop: str) -> None:
    url = url_of(server, **files(server))

    async def main() -> None:
        for _ in range(5):
            broker = AmqpBroker(url)
            await broker.open()
            await broker.close()
            await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    gc.collect()


async def test_an_authority_that_nobody_knows(server: RabbitServer) -> None:
    error = await failure_of(url_of(server))
    assert isinstance(error, ConfigurationError)
    assert "its certificate is not trusted" in str(error) and "add cafile=" in str(error)


async def test_another_host_than_the_certificates(server: RabbitServer) -> None:
    error = await failure_of(url_of(server, host="127.0.0.2", **files(server)))
    # The server listens on one address of this machine: another name for it is what there is to try.
    assert "127.0.0.2" in str(error)
    name = "localhost.localdomain"
    options = files(server) | {"cafile": _other_authority(server, name)}
    error = await failure_of(url_of(server, **options))
    assert isinstance(error, ConfigurationError) and "its certificate is not trusted" in str(error)


def _other_authority(server: RabbitServer, name: str) -> Path:
    path = server.folder / "other.pem"
    trustme.CA(organization_name=name).cert_pem.write_to_path(str(path))
    return path


async def test_no_certificate_of_the_clients(server: RabbitServer) -> None:
    error = await failure_of(url_of(server, cafile=files(server)["cafile"]))
    assert f"{server.host}:{server.port}" in str(error)
    assert "perhaps it asks for a certificate of yours (certfile" in str(error)


async def test_files_that_are_not_there(server: RabbitServer) -> None:
    with pytest.raises(ConfigurationError, match="the certificates for TLS cannot be read"):
        AmqpBroker(url_of(server, cafile="/nowhere.pem"))


async def test_not_verifying_is_possible(server: RabbitServer) -> None:
    options = files(server)
    del options["cafile"]
    broker = AmqpBroker(url_of(server, verify="false", **options))
    await broker.open()
    await broker.close()


async def test_the_certificate_says_who_it_is(server: RabbitServer) -> None:
    assert server.certificates is not None
    name = server.eval(
        f'{{ok, Pem}} = file:read_file("{server.certificates.certificate}"),'
        "[{_, Der, _} | _] = public_key:pem_decode(Pem),"
        "rabbit_ssl:peer_cert_auth_name(Der)"
    )
    error = await failure_of(url_of(server, login="", **files(server)))
    assert isinstance(error, ConfigurationError) and "is not let in" in str(error)
    server.eval(
        f'rabbit_auth_backend_internal:add_user({name}, <<"">>, <<"test">>),'
        f'rabbit_auth_backend_internal:set_permissions({name}, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>)'
    )
    before = len(server.log)
    broker = AmqpBroker(url_of(server, login="", prefix="external.", **files(server)))
    await broker.open()
    told = server.eval("[proplists:get_value(auth_mechanism, P) || P <- rabbit_networking:connection_info_all()]")
    assert told.count("EXTERNAL") == 1
    await broker.close()
    # What declares came and went, by the same certificate.
    assert "authenticated" in server.log[before:] and "'guest'" not in server.log[before:]
    gc.collect()


async def test_tls_against_a_plain_port_and_the_reverse(server: RabbitServer) -> None:
    plain = shared()
    error = await failure_of(f"amqps://{plain.host}:{plain.port}/?timeout=5")
    assert isinstance(error, ConfigurationError)
    assert "it does not speak TLS: write amqp for amqps, or the port for TLS" in str(error)
    error = await failure_of(f"amqp://{server.host}:{server.port}/?timeout=5")
    # It says nothing at all to who does not speak TLS, or a few bytes of TLS.
    assert "perhaps it speaks TLS (amqps)" in str(error) or "it speaks TLS: write amqps for amqp" in str(error)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_abandoning_when_the_loop_is_gone(server: RabbitServer, loop: str) -> None:
    made = LOOPS[loop]()
    store = Store.of_url(url_of(server, name=f"abandoned-{loop}", **files(server)))

    def connections() -> int:
        told = server.eval(
            "[proplists:get_value(client_properties, P) || P <- rabbit_networking:connection_info_all()]"
        )
        return told.count(f"abandoned-{loop}")

    wire = made.run_until_complete(connect(store, purpose="test", heartbeat=60))
    assert connections() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if loop == "uvloop" else "error", ResourceWarning)
        made.close()
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            threads.submit(wire.abandon).result()
    until(lambda: connections() == 0, "the end of the connection")
    del wire
    gc.collect()
