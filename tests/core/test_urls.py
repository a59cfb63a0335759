"""URLs of servers, taken apart for plugins: as they were put together, refused in words, and never shown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings
from urllib.parse import quote

import pytest
from camora.errors import ConfigurationError
from camora.sockets import let_go
from camora.urls import Query, ServerUrl, host_and_port, one_of, shown_url, text, truth
from hypothesis import given
from hypothesis import strategies as st

SCHEMES = ("bus", "bus+unix")
WORDS = st.text("abcXYZ019-._~@:/?#%+=&; ü", max_size=12)


@given(user=WORDS, password=WORDS, path=WORDS)
def test_it_comes_apart_as_it_was_put_together(user: str, password: str, path: str) -> None:
    access = f"{quote(user, safe='')}:{quote(password, safe='')}"
    found = ServerUrl.of(f"BUS://{access}@one:1,two/{quote(path, safe='/')}?a=1", SCHEMES)
    assert (found.scheme, found.user, found.password, found.named) == ("bus", user, password, True)
    assert found.hosts == ["one:1", "two"]
    assert found.path == quote(path, safe="/")
    assert found.query == "a=1"
    assert found.where.startswith("BUS://one:1,two")


def test_nothing_is_there_where_nothing_was_said() -> None:
    found = ServerUrl.of("bus://", SCHEMES)
    assert (found.user, found.password, found.named, found.hosts, found.path) == ("", "", False, [""], "")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("buss://h", "did you mean bus://?"),
        ("http://h", "the scheme must be one of bus, bus+unix"),
        ("bus://me:s3cret@x/y@h", "write / as %2F"),
        ("bus://h?token=s3cret@x", "write / as %2F"),
    ],
)
def test_what_cannot_be_is_said_without_its_secret(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerUrl.of(url, SCHEMES)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_path_of_a_file_may_have_anything_in_it() -> None:
    found = ServerUrl.of("bus+unix:///run/a@b", SCHEMES, paths=["bus+unix"])
    assert found.rest == "/run/a@b"


@given(url=st.text("abc:/?@&=#%. ", max_size=30), password=st.just("s3cret-s3cret"))
def test_what_is_shown_has_no_password(url: str, password: str) -> None:
    assert password not in shown_url(f"bus://me:{password}@{url}")


def test_a_query_says_all_its_mistakes_at_once() -> None:
    url = ServerUrl.of("bus://h?prefix=a&prefix=b&size=big&flag=perhaps&pasword=s3cret&kind=one&pin=s3cret", SCHEMES)
    found = Query.of(url, ["prefix", "size"], {"flag": truth, "kind": one_of("one", "two"), "pin": int}, secret=["pin"])
    assert found.settings == {"prefix": "a", "size": "big"}
    assert found.options == {"kind": "one"}
    assert len(found.problems) == 4
    told = "\n".join(found.problems)
    assert "'prefix' is given twice" in told and "flag = 'perhaps': expected true or false" in told
    assert "unknown setting 'pasword'" in told and "pin = ***" in told
    assert all(problem.startswith("bus://h: ") for problem in found.problems)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", ("localhost", 7)),
        ("h", ("h", 7)),
        ("h:1", ("h", 1)),
        ("[::1]", ("::1", 7)),
        ("[::1]:2", ("::1", 2)),
    ],
)
def test_hosts_and_ports(given: str, found: tuple[str, int]) -> None:
    assert host_and_port(given, 7, "bus://x") == found


@pytest.mark.parametrize("given", ["h:x", "h:0", "h:99999", "::1", "a:b:c"])
def test_no_hosts_and_ports(given: str) -> None:
    with pytest.raises(ConfigurationError, match="bus://x: .* is no host and port"):
        host_and_port(given, 7, "bus://x")


def test_readers_of_options() -> None:
    assert [truth(word) for word in ("1", "Yes", "TRUE", "off")] == [True, True, True, False]
    assert one_of("a", "b")("B") == "b"
    assert text(" ") == " "
    for read, word in ((truth, "2"), (one_of("a"), "c"), (text, "")):
        with pytest.raises(ValueError):
            read(word)


# Sockets of loops that are gone


@pytest.mark.parametrize("closed", [True, False])
def test_a_socket_is_let_go_whatever_became_of_its_loop(closed: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        loop = asyncio.new_event_loop()
        _, writer = loop.run_until_complete(asyncio.open_connection(*server.getsockname()))
        there, _ = server.accept()
        there.settimeout(60)
        if closed:
            loop.close()
        let_go(writer.transport, loop)
        let_go(writer.transport, loop)
        if not closed:
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        with there, contextlib.suppress(ConnectionResetError):
            assert there.recv(1) == b""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of the stream, whose loop was closed under it
            del writer
            gc.collect()
