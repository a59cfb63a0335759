"""Where the servers are, and how one gets in: what is wrong is said once, with its fix, and without a password."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError
from camora_amqp.broker import AmqpBroker
from camora_amqp.control import Control
from camora_amqp.link import connect
from camora_amqp.store import Store

from tests.servers.ports import free_port
from tests.servers.process import wait_until
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import fresh_url, shared

PASSWORD = "do-not-show/it@all:100%"


async def failure_of(url: str) -> CamoraError:
    """Why a broker at this URL cannot be opened."""
    broker = AmqpBroker(url)
    with pytest.raises(CamoraError) as caught:
        await broker.open()
    await broker.close()
    said = f"{caught.value} {broker!r}"
    assert "AmqpBroker(" in str(caught.value)
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "do-not-show"):
        assert secret not in said
    return caught.value


def url_of(user: str = "guest", password: str = "guest", vhost: str = "", query: str = "timeout=5") -> str:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return f"amqp://{login}@{shared().host}:{shared().port}/{quote(vhost, safe='')}?{query}"


@contextmanager
def user(name: str, rights: tuple[str, str, str] | None, vhost: str = "/") -> Iterator[str]:
    """A user of the shared server with the one password."""
    server = shared()
    server.eval(f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{PASSWORD}">>, <<"test">>)')
    if rights is not None:
        patterns = ", ".join(f'<<"{right}">>' for right in rights)
        server.eval(
            f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"{vhost}">>, {patterns}, <<"test">>)'
        )
    yield url_of(name, PASSWORD)
    server.eval(f'rabbit_auth_backend_internal:delete_user(<<"{name}">>, <<"test">>)')


# Not let in


async def test_a_wrong_password() -> None:
    error = await failure_of(url_of("guest", PASSWORD))
    assert isinstance(error, ConfigurationError)
    assert "user name or password are wrong: user 'guest' is not let in" in str(error)


async def test_an_unknown_user() -> None:
    error = await failure_of(url_of("bob", PASSWORD))
    assert isinstance(error, ConfigurationError)
    assert "user 'bob' is not let in" in str(error)


async def test_an_unknown_virtual_host() -> None:
    error = await failure_of(url_of(vhost="no/where"))
    assert isinstance(error, ConfigurationError)
    assert "there is no virtual host 'no/where': correct the URL, or rabbitmqctl add_vhost 'no/where'" in str(error)


async def test_no_rights_in_the_virtual_host() -> None:
    with user("ann", None) as url:
        error = await failure_of(url)
    assert isinstance(error, ConfigurationError)
    assert "rabbitmqctl set_permissions -p '/' 'ann' '.*' '.*' '.*'" in str(error)


async def test_no_right_to_make_queues() -> None:
    with user("carl", ("^$", ".*", ".*")) as url:
        error = await failure_of(url)
    assert isinstance(error, ConfigurationError)
    assert "Let 'carl' do this" in str(error) and "camora.dead" in str(error)


async def test_no_right_to_publish() -> None:
    with user("dora", (".*", "^(camora|default).*", ".*")) as url:
        app = Camora(f"{url}&prefix=camora.dora.", results=False)

        @app.task
        async def work() -> None: ...

        async with app:
            with pytest.raises(CamoraError, match=r"access to exchange 'amq.default'.* refused for user 'dora'"):
                await work.dispatch()


async def test_a_password_with_every_character_works_on_all_connections() -> None:
    with user("e/v@e:%", (".*", ".*", ".*")) as url:
        await runs(f"{url}&prefix=camora.eve.")


async def runs(url: str) -> None:
    """A job goes there and its result comes back: every kind of connection is made."""
    app = Camora(url)

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    async with app, app.worker():
        assert await (await double.dispatch(21)).result(timeout=60) == 42


# Virtual hosts


@pytest.mark.parametrize("name", ["a/b", "with space", "ünï", "100%", "q?x&y", "#1", "plus+", "it's", "a:b@c"])
async def test_virtual_hosts_with_odd_names(name: str) -> None:
    server = shared()
    listed = ",".join(map(str, name.encode()))
    everything = ", ".join(['<<".*">>'] * 3)
    server.eval(
        f'rabbit_vhost:add(<<{listed}>>, <<"test">>),'
        f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<{listed}>>, {everything}, <<"test">>)'
    )
    try:
        await runs(url_of(vhost=name))
        found = server.eval(f"[amqqueue:get_name(Q) || Q <- rabbit_amqqueue:list(<<{listed}>>)]")
        assert '<<"default">>' in found
    finally:
        server.eval(f'rabbit_vhost:delete(<<{listed}>>, <<"test">>)')


# Not there, and somebody else


async def test_nobody_listens() -> None:
    port = free_port()
    error = await failure_of(f"amqp://127.0.0.1:{port}")
    assert isinstance(error, BrokerUnavailable)
    assert f"127.0.0.1:{port}: nothing listens there: start the server, or correct host and port" in str(error)


async def test_a_host_that_nobody_knows() -> None:
    error = await failure_of("amqp://nowhere.invalid")
    assert isinstance(error, BrokerUnavailable)
    assert "nowhere.invalid:5672: the name of the host is not known" in str(error)


async def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await failure_of(f"amqp://127.0.0.1:{silent.getsockname()[1]}?timeout=0.3")
    assert isinstance(error, BrokerUnavailable)
    assert "does not answer within 0.3 s" in str(error)


# Several nodes


async def test_nodes_that_do_not_answer_are_passed_by() -> None:
    server = shared()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = (
            f"127.0.0.1:{free_port()},127.0.0.1:{silent.getsockname()[1]},nowhere.invalid,{server.host}:{server.port}"
        )
        await runs(f"amqp://guest:guest@{hosts}/?timeout=0.5&prefix=camora.several.")


async def test_all_nodes_are_named_when_none_answers() -> None:
    first, second = free_port(), free_port()
    error = await failure_of(f"amqp://127.0.0.1:{first},127.0.0.1:{second}")
    assert isinstance(error, BrokerUnavailable)
    assert f"127.0.0.1:{first}: nothing listens there" in str(error) and f"127.0.0.1:{second}: nothing" in str(error)


async def test_a_node_that_answers_late_is_kept_to() -> None:
    server = shared()
    store = Store.of_url(f"amqp://127.0.0.1:{free_port()},{server.host}:{server.port}")
    for _ in range(2):
        wire = await connect(store, purpose="test", heartbeat=20)
        assert wire.label == f"{server.host}:{server.port}"
        await wire.close()
    assert store.hosts()[0] == (server.host, server.port)


async def test_a_connection_that_is_lost_is_made_to_the_other_node() -> None:
    server = shared()
    with Proxy((server.host, server.port)) as one, Proxy((server.host, server.port)) as two:
        app = Camora(f"amqp://127.0.0.1:{one.port},127.0.0.1:{two.port}/?timeout=2&prefix=camora.other.")

        @app.task
        async def echo(number: int) -> int:
            return number

        async with app, app.worker():
            assert await (await echo.dispatch(0)).result(timeout=60) == 0
            for number in range(1, 5):
                away, there = (one, two) if number % 2 else (two, one)
                there.heal()
                away.refuse()
                away.cut()
                async with asyncio.timeout(60):
                    while True:
                        try:
                            job = await echo.dispatch(number)
                            break
                        except CamoraError:
                            await asyncio.sleep(0.05)
                assert await job.result(timeout=60) == number
                assert there.connections and not away.connections


# Names


async def test_operators_see_what_each_connection_is_for() -> None:
    server = shared()
    app = Camora(f"{fresh_url()}&name=shop")

    @app.task
    async def work() -> None: ...

    def named() -> str:
        return server.eval(
            "[proplists:get_value(client_properties, P) || P <- rabbit_networking:connection_info_all()]"
        )

    async with app, app.worker():
        await (await work.dispatch()).result(timeout=60)
        told = await asyncio.to_thread(named)
        for purpose in ("publishing", "results"):
            assert f'"shop: {purpose}"' in told
        assert told.count('"shop: ') >= 3  # the worker's has its name
        # What declares is closed when it has nothing to do.
        await asyncio.to_thread(wait_until, lambda: '"shop: control"' not in named(), "its end", 30)
    wait_until(lambda: '"shop: ' not in named(), "the end of all connections", 30)


async def test_whoever_is_called_off_while_it_connects_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The client library's tasks end, and begin others meanwhile: a loop that is closed then would complain of them."""
    before = asyncio.all_tasks()
    finished = False
    for turns in itertools.count(step=3):
        control = Control(Store.of_url(fresh_url()), "here")

        async def use(control: Control = control) -> None:
            async with control.channel() as channel:
                await channel.basic_qos(prefetch_count=1)

        using = asyncio.create_task(use())
        for _ in range(turns):
            await asyncio.sleep(0.0002)
        finished = using.done()
        using.cancel()
        await asyncio.wait([using])
        assert asyncio.all_tasks() == before, f"called off after {turns} turns of the loop"
        del using, control
        gc.collect()
        if finished:
            break
    assert not caplog.records
