"""URLs and settings: taken apart as they were put together, refused in words, and never shown with a password."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import attrs
import pytest
from camora import Camora
from camora.errors import ConfigurationError, SettingsError
from camora_redis import RedisBroker
from camora_redis.settings import SCHEMES, RedisSettings, split_url
from hypothesis import example, given
from hypothesis import strategies as st

KEPT = {"socket_keepalive": True}


@pytest.mark.parametrize(
    ("url", "form", "hosts", "options", "label"),
    [
        ("redis://", "single", [("localhost", 6379)], {"db": 0}, "redis://"),
        ("redis://h", "single", [("h", 6379)], {"db": 0}, "redis://h"),
        ("redis:///3", "single", [("localhost", 6379)], {"db": 3}, "redis:///3"),
        ("redis://h:1/2", "single", [("h", 1)], {"db": 2}, "redis://h:1/2"),
        ("redis://h:1?db=2", "single", [("h", 1)], {"db": 2}, "redis://h:1"),
        ("REDIS://h:1/2", "single", [("h", 1)], {"db": 2}, "REDIS://h:1/2"),
        ("valkey://h", "single", [("h", 6379)], {"db": 0}, "valkey://h"),
        ("rediss://h", "single", [("h", 6379)], {"db": 0, "ssl": True}, "rediss://h"),
        ("valkeys://h", "single", [("h", 6379)], {"db": 0, "ssl": True}, "valkeys://h"),
        ("redis://[::1]:7/1", "single", [("::1", 7)], {"db": 1}, "redis://[::1]:7/1"),
        ("redis://[fe80::1]", "single", [("fe80::1", 6379)], {"db": 0}, "redis://[fe80::1]"),
        ("redis://:pw@h", "single", [("h", 6379)], {"db": 0, "password": "pw"}, "redis://h"),
        ("redis://ann@h", "single", [("h", 6379)], {"db": 0, "username": "ann"}, "redis://h"),
        (
            "redis://a%40b:p%2F%3F%40%3A%25@h/1",
            "single",
            [("h", 6379)],
            {"db": 1, "username": "a@b", "password": "p/?@:%"},
            "redis://h/1",
        ),
        ("redis+cluster://a:1,b,[::2]:3", "cluster", [("a", 1), ("b", 6379), ("::2", 3)], {}, None),
        ("rediss+cluster://:p@a:1/0", "cluster", [("a", 1)], {"ssl": True, "password": "p"}, "rediss+cluster://a:1/0"),
        ("valkeys+cluster://a", "cluster", [("a", 6379)], {"ssl": True}, None),
    ],
)
def test_urls_of_servers(url: str, form: str, hosts: Any, options: dict[str, Any], label: str | None) -> None:
    address, settings = split_url(url)
    assert (address.form, list(address.hosts)) == (form, hosts)
    single = {"host": hosts[0][0], "port": hosts[0][1]} if form == "single" else {}
    assert address.options == {**KEPT, **options, **single}
    assert address.label == (label or url)
    assert settings == RedisSettings()


@pytest.mark.parametrize(
    ("url", "path", "database", "more", "label"),
    [
        ("redis+unix:///run/r.sock", "/run/r.sock", 0, {}, "redis+unix:///run/r.sock"),
        ("valkey+unix:///run/r.sock", "/run/r.sock", 0, {}, "redis+unix:///run/r.sock"),
        ("unix:///run/r.sock?db=3", "/run/r.sock", 3, {}, "redis+unix:///run/r.sock"),
        ("redis+unix:///run/r.sock/3", "/run/r.sock", 3, {}, "redis+unix:///run/r.sock/3"),
        ("redis+unix:///run/a%20b%40c", "/run/a b@c", 0, {}, "redis+unix:///run/a b@c"),
        (
            "redis+unix://ann:p%2Fw@/run/r.sock",
            "/run/r.sock",
            0,
            {"username": "ann", "password": "p/w"},
            "redis+unix:///run/r.sock",
        ),
    ],
)
def test_urls_of_sockets(url: str, path: str, database: int, more: dict[str, Any], label: str) -> None:
    address, _ = split_url(url)
    assert (address.form, address.path, address.label) == ("unix", path, label)
    assert address.options == {"path": path, "db": database, **more}


def test_urls_of_sentinels() -> None:
    url = "rediss+sentinel://ann:pw@a:1,b,[::1]:3/my%2Fservice/4?sentinel_username=bob&sentinel_password=s%26w"
    address, settings = split_url(url)
    assert address.form == "sentinel"
    assert address.hosts == (("a", 1), ("b", 26379), ("::1", 3))
    assert address.service == "my/service"
    assert address.options == {**KEPT, "username": "ann", "password": "pw", "db": 4, "ssl": True}
    assert address.sentinel_options == {**KEPT, "username": "bob", "password": "s&w", "ssl": True}
    assert settings.sentinel_password == "s&w"
    assert address.label == "rediss+sentinel://a:1,b,[::1]:3/my%2Fservice/4"
    assert "s&w" not in repr(address) + repr(settings)
    assert "pw" not in repr(address)
    plain, _ = split_url("redis+sentinel://a/svc", RedisSettings(sentinel_password="x"))
    assert plain.sentinel_options == {**KEPT, "password": "x"}
    assert plain.options == {**KEPT, "db": 0}


def test_options_of_connections() -> None:
    query = {
        "ssl_ca_certs": "/ca.pem", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem", "ssl_password": "p",
        "ssl_min_version": "1.3",
        "ssl_cert_reqs": "Optional", "ssl_check_hostname": "no", "ssl_ciphers": "ALL", "client_name": "me",
        "socket_keepalive": "off",
    }  # fmt: skip
    address, _ = split_url(f"rediss://h/1?{urlencode(query)}")
    assert address.options == {
        **query,
        "host": "h",
        "port": 6379,
        "db": 1,
        "ssl": True,
        "ssl_min_version": ssl.TLSVersion.TLSv1_3,
        "ssl_cert_reqs": "optional",
        "ssl_check_hostname": False,
        "socket_keepalive": False,
    }
    unchecked, _ = split_url("rediss://h?ssl_cert_reqs=none")
    assert unchecked.options["ssl_check_hostname"] is False


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("prefix=shop", {"prefix": "shop"}),
        ("group=workers", {"group": "workers"}),
        ("timeout=2", {"timeout": 2.0}),
        ("timeout=1500ms", {"timeout": 1.5}),
        ("dedup_window=0", {"dedup_window": 0}),
        ("wait_replicas=2&wait_timeout=1m", {"wait_replicas": 2, "wait_timeout": 60.0}),
        ("protocol=2", {"protocol": 2}),
    ],
)
def test_settings_of_the_query_stand_over_those_given(query: str, expected: dict[str, Any]) -> None:
    given = RedisSettings(prefix="given", dedup_window=7, protocol=3)
    address, settings = split_url(f"redis://h?{query}", given)
    assert settings == attrs.evolve(given, **expected)
    assert address.options["protocol"] == settings.protocol


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("timout=5", "unknown setting 'timout': did you mean 'timeout'?"),
        ("ssl_cacerts=x", "did you mean 'ssl_ca_certs'?"),
        ("zzz=5", "unknown setting 'zzz': known are prefix, group"),
        ("timeout=5&timeout=6", "setting 'timeout' is given twice"),
        ("timeout=soon", "timeout"),
        ("timeout=0", "must be more than 0"),
        ("timeout=inf", "timeout"),
        ("timeout=-1s", "timeout"),
        ("wait_timeout=0s", "must be more than 0"),
        ("dedup_window=-1", "must be 0 or more"),
        ("dedup_window=many", "dedup_window"),
        ("dedup_window=1.5", "dedup_window"),
        ("wait_replicas=-1", "must be 0 or more"),
        ("protocol=4", "must be 2 or 3"),
        ("protocol=two", "protocol"),
        ("prefix=", "expected a name"),
        ("prefix=a%7Bb", "must not have braces in it"),
        ("group=", "expected a name"),
        ("db=one", "db = 'one': expected the number of a database"),
        ("db=-1", "db = '-1': expected the number of a database"),
        ("ssl_ca_certs=/x", "ssl_ca_certs is for TLS: write rediss for redis in the URL"),
        ("socket_keepalive=perhaps", "socket_keepalive = 'perhaps': expected true or false"),
        ("client_name=", "client_name = '': expected printable ASCII without spaces"),
        ("client_name=my%20app", "client_name = 'my app': expected printable ASCII without spaces"),
    ],
)
def test_settings_that_are_refused(query: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        split_url(f"redis://ann:hunter2@h:1/0?{query}")
    assert words in str(caught.value)
    assert str(caught.value).startswith("redis://h:1/0: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError):
        Camora(f"redis://ann:hunter2@h:1/0?{query}")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ssl_cert_reqs=maybe", "must be one of none, optional, required"),
        ("ssl_min_version=1.1", "must be 1.2 or 1.3"),
        ("ssl_check_hostname=2", "expected true or false"),
        ("ssl_certfile=", "it is empty"),
    ],
)
def test_options_of_tls_that_are_refused(query: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        split_url(f"rediss://h?{query}")


def test_every_mistake_of_a_query_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        split_url("redis://h?timout=1&db=x&db=y")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rediz://h", "did you mean redis://?"),
        ("http://h", "the scheme must be one of redis, "),
        ("h:6379", "the scheme must be one of redis, "),
        ("redis://a,b", "several hosts need redis+sentinel:// or redis+cluster://"),
        ("redis://h/x", "'x' is no number of a database"),
        ("redis://h/1/2", "'1/2' is no number of a database"),
        ("redis://h/1?db=1", "setting 'db' is given twice, in the path too"),
        ("redis://h:70000", "'h:70000' is no host and port"),
        ("redis://h:0", "there is no port 0"),
        ("redis://h:x", "'h:x' is no host and port"),
        ("redis://::1:6379", "write an IPv6 address in brackets"),
        ("redis://[::1", "is no host and port"),
        ("redis+cluster://h/1", "a cluster has no database but 0"),
        ("redis+cluster://h?db=1", "a cluster has no database but 0"),
        ("redis+sentinel://h", "name the service"),
        ("redis+sentinel://h/0", "name the service"),
        ("redis+sentinel://h/svc/x", "'x' is no number of a database"),
        ("redis+unix://run/r.sock", "name the socket by its whole path"),
        ("redis+unix:///r.sock?ssl_certfile=/c", "ssl_certfile is for TLS: which a socket does not have"),
        ("redis+unix:///r.sock/1?db=1", "setting 'db' is given twice"),
        ("redis://:p/w@h", "write / as %2F, ? as %3F, @ as %40"),
        ("redis://:p?w@h", "write / as %2F, ? as %3F, @ as %40"),
    ],
)
def test_urls_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_url(url)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"timeout": 0}, "timeout = 0.0: must be more than 0"),
        ({"timeout": "soon"}, "timeout = 'soon': expected seconds"),
        ({"wait_timeout": None}, "wait_timeout = None: expected seconds"),
        ({"dedup_window": -1}, "dedup_window = -1: must be 0 or more"),
        ({"dedup_window": True}, "dedup_window = True: expected a whole number"),
        ({"wait_replicas": 1.5}, "wait_replicas = 1.5: expected a whole number"),
        ({"prefix": ""}, "prefix = '': expected a name"),
        ({"prefix": "{x}"}, "must not have braces"),
        ({"group": 3}, "group = 3: expected a name"),
        ({"protocol": 1}, "protocol = 1: must be 2 or 3"),
    ],
)
def test_settings_made_by_hand_are_checked_too(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RedisSettings(**settings)
    assert words in str(caught.value)


def test_no_password_shows_where_people_look() -> None:
    url = "redis+sentinel://ann:hunter2@h:1/svc?sentinel_password=hunter3"
    app = Camora(url)
    broker = RedisBroker.from_url(url)
    address, settings = split_url(url)
    for shown in (repr(app), repr(app.broker), str(broker), repr(broker.database.label), repr(address), repr(settings)):
        assert "hunter" not in shown


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_known_to_the_app(scheme: str) -> None:
    rest = "///run/redis.sock" if scheme.endswith("unix") else "//h:1/svc" if scheme.endswith("sentinel") else "//h:1"
    assert isinstance(Camora(f"{scheme}:{rest}").broker, RedisBroker)


# camora.toml and the environment


def test_settings_stand_in_the_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "camora.toml"
    path.write_text('[broker]\nurl = "redis+sentinel://h:1/svc"\nprefix = "shop"\ntimeout = "2s"\nwait_replicas = 1\n')
    monkeypatch.setenv("CAMORA_BROKER__SENTINEL_PASSWORD", "hunter2")
    broker = Camora.from_toml(path).broker
    assert isinstance(broker, RedisBroker)
    expected = RedisSettings(prefix="shop", timeout=2.0, wait_replicas=1, sentinel_password="hunter2")
    assert broker.database.settings == expected
    path.write_text('[broker]\nurl = "redis://h"\nwait_replica = 1\ndedup_window = -1\nprefix = "{x}"\n')
    with pytest.raises(SettingsError) as caught:
        Camora.from_toml(path)
    told = "\n".join(caught.value.problems)
    for words in ("did you mean 'wait_replicas'?", "must be 0 or more", "must not have braces in it"):
        assert words in told
    assert "hunter2" not in told


# Round trips

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
PORTS = st.integers(1, 65535)
HOSTS = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True) | st.ip_addresses(v=4).map(str)
SIXES = st.ip_addresses(v=6).map(str)


def credentials_of(user: str, password: str) -> str:
    return f"{quote(user, safe='')}:{quote(password, safe='')}@"


@given(WORDS, WORDS, HOSTS | SIXES, PORTS, st.integers(0, 1000), st.sampled_from(["redis", "rediss", "valkey"]))
def test_a_url_of_one_server_comes_apart_as_it_was_made(
    user: str, password: str, host: str, port: int, database: int, scheme: str
) -> None:
    shown = f"[{host}]" if ":" in host else host
    address, _ = split_url(f"{scheme}://{credentials_of(user, password)}{shown}:{port}/{database}")
    assert address.hosts == ((host, port),)
    assert (address.options["username"], address.options["password"]) == (user, password)
    assert address.options["db"] == database
    assert address.label == f"{scheme}://{shown}:{port}/{database}"


@given(WORDS, WORDS, st.lists(st.tuples(HOSTS, PORTS), min_size=1, max_size=4), WORDS, st.integers(0, 99), WORDS)
def test_a_url_of_sentinels_comes_apart_as_it_was_made(
    user: str, password: str, hosts: list[tuple[str, int]], service: str, database: int, secret: str
) -> None:
    if service.isdecimal():
        service = f"s{service}"
    named = ",".join(f"{host}:{port}" for host, port in hosts)
    start = f"redis+sentinel://{credentials_of(user, password)}{named}/{quote(service, safe='')}/{database}"
    address, settings = split_url(f"{start}?{urlencode({'sentinel_password': secret})}")
    assert address.hosts == tuple(hosts)
    assert address.service == service
    assert (address.options["username"], address.options["password"]) == (user, password)
    assert settings.sentinel_password == address.sentinel_options["password"] == secret


@given(
    st.builds(
        RedisSettings,
        prefix=st.from_regex(r"[a-z:]{1,10}", fullmatch=True),
        timeout=st.floats(0.001, 1e6),
        dedup_window=st.integers(0, 10**9),
        wait_replicas=st.integers(0, 9),
        wait_timeout=st.floats(0.001, 1e6),
        protocol=st.sampled_from([None, 2, 3]),
    )
)
def test_settings_come_out_of_the_query_as_they_went_in(settings: RedisSettings) -> None:
    said = {name: value for name, value in attrs.asdict(settings).items() if value is not None}
    assert split_url(f"redis://h?{urlencode(said)}")[1] == settings


@given(
    st.sampled_from(["redis://", "rediss://", "redis+sentinel://", "redis+cluster://", "redis+unix://", "unix://"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12),
    st.sampled_from(["h:1/0", "h:1/svc/0", "h:x", "/run/sock", "h:1?timout=1", "h:1,b"]),
)
@example("redis://", "", "a/b", "h:1/0")
@example("redis://", "", "a?b=", "h:1/0")
@example("redis://", "?", "", "h:1/0")
def test_no_error_ever_shows_a_password_however_it_is_written(scheme: str, before: str, after: str, rest: str) -> None:
    password = f"{before}XSECRETX{after}"
    shown = ""
    try:
        shown = repr(split_url(f"{scheme}:{password}@{rest}"))
    except ConfigurationError as error:
        shown = str(error)
    assert "XSECRETX" not in shown
