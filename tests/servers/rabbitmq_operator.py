"""What operators do to a RabbitMQ, and what happens to it by itself: inside the node, where it costs next to nothing.

`rabbitmqctl` does the same, after two seconds of starting an Erlang of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.servers.rabbitmq import RabbitServer

__all__ = ["ALARMS", "add_user", "alarm", "allow", "close_connections", "connections", "delete_queue", "having"]

ALARMS = {
    "memory": (
        "vm_memory_monitor:set_vm_memory_high_watermark(0)",
        "vm_memory_monitor:set_vm_memory_high_watermark(0.4)",
    ),
    "disk": (
        "rabbit_disk_monitor:set_disk_free_limit(1000000000000000000)",
        "rabbit_disk_monitor:set_disk_free_limit(50000000)",
    ),
}
"""How each begins, and how it ends."""


@contextlib.contextmanager
def alarm(server: RabbitServer, kind: str = "memory") -> Iterator[None]:
    """The server takes no messages inside the block."""
    begin, end = ALARMS[kind]
    server.eval(begin)
    try:
        yield
    finally:
        server.eval(end)


@contextlib.contextmanager
def having(server: RabbitServer, **settings: int) -> Iterator[None]:
    """Other settings of the application `rabbit` inside the block: for connections, channels and queues made there.

    A server that starts again meanwhile has forgotten them.
    """
    before = {name: server.eval(f"application:get_env(rabbit, {name})") for name in settings}
    for name, value in settings.items():
        server.eval(f"application:set_env(rabbit, {name}, {value})")
    try:
        yield
    finally:
        for name, told in before.items():
            known = told.removeprefix("{ok,").removesuffix("}")
            server.eval(
                f"application:unset_env(rabbit, {name})"
                if told == "undefined"
                else f"application:set_env(rabbit, {name}, {known})"
            )


def close_connections(server: RabbitServer, why: str) -> None:
    """Close every connection, with these words."""
    server.eval(f'rabbit_networking:close_connections(rabbit_networking:connections(), "{why}")')


def connections(server: RabbitServer, *what: str) -> str:
    """What the server says of its connections, as Erlang writes it: a list for each."""
    return server.eval(f"[[V || {{_, V}} <- P] || P <- rabbit_networking:connection_info_all([{','.join(what)}])]")


def delete_queue(server: RabbitServer, name: str, vhost: str = "/") -> None:
    """Delete a queue with all that is in it."""
    server.eval(
        f'{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{name}">>)), '
        '{ok, _} = rabbit_amqqueue:delete(Queue, false, false, <<"camora">>)'
    )


def add_user(server: RabbitServer, name: str, password: str) -> None:
    """Let somebody in, who may do nothing yet; who is known is left as he is."""
    server.eval(
        f'case rabbit_auth_backend_internal:lookup_user(<<"{name}">>) of {{ok, _}} -> ok; _ -> '
        f'ok = rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{password}">>, <<"camora">>) end'
    )


def allow(server: RabbitServer, user: str, vhost: str, configure: str, write: str, read: str) -> None:
    """Set what a user may do in a virtual host: patterns of names."""
    patterns = ", ".join(f'<<"{pattern}">>' for pattern in (configure, write, read))
    server.eval(
        f'ok = rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{vhost}">>, {patterns}, <<"camora">>)'
    )
