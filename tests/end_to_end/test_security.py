"""Signed messages and marked secrets, at work: on every broker, with real workers, and with everything searched."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import attrs
import msgspec
import pytest
from camora import BaseTask, Camora, Context, Failure, Message, Retry, RetryPolicy, Secret, WorkerSettings
from camora.builtin.json_codec import JsonCodec
from camora.builtin.signing import SignedCodec
from camora.errors import DecodeError, JobFailed, PayloadError
from camora.interfaces import Codec
from camora.message import Envelope
from camora.observers import LoggingObserver, MemoryObserver
from camora.outcome import DeadLetter
from camora.secrets import mask_arguments
from processes import WorkerProcess

from tests import forked

OLD = "the old key, which is long enough to be one"
NEW = "the new key, which is long enough to be one"
OTHER = "a key of somebody else, long enough to be one"
QUICK = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)


async def letters(app: Camora) -> dict[str, DeadLetter]:
    return {letter.id: letter async for letter in app.dead_letters()}


async def put(app: Camora, body: bytes, *, job_id: str, queue: str = "default", task: str = "pay") -> None:
    """Put bytes into the broker as whoever may write there can."""
    broker = app.broker.twin()
    await broker.open()
    await broker.publish([Envelope(id=job_id, task=task, queue=queue, body=body)])
    await broker.close()


# Two lines


@pytest.mark.parametrize("url", ["memory://", "sqlite:///camora.db"])
async def test_two_lines_turn_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_KEY", NEW)
    (tmp_path / "camora.toml").write_text(f'[signing]\nkey = {{ env = "SHOP_KEY" }}\n[broker]\nurl = "{url}"\n')
    app = Camora.from_toml()
    paid: list[int] = []

    @app.task(name="pay")
    async def pay(amount: int) -> int:
        paid.append(amount)
        return amount

    async with app, app.worker(settings=QUICK):
        await put(app, JsonCodec().encode(Message(id="bare", task="pay", args=[1_000_000])), job_id="bare")
        assert await (await pay.dispatch(5)).result(60) == 5
        await app.events.flush()
        while "bare" not in (found := await letters(app)):
            await pay.dispatch(5)
    assert found["bare"].reason == "unsigned"
    assert set(paid) == {5}


# What is refused, and why


def _unsigned(genuine: bytes) -> Mapping[str, Any]:
    return {"body": genuine.partition(b"\n")[2]}


def _altered(genuine: bytes) -> Mapping[str, Any]:
    assert b'"amount":5' in genuine
    return {"body": genuine.replace(b'"amount":5', b'"amount":9')}


def _renamed(genuine: bytes) -> Mapping[str, Any]:
    return {"body": genuine.replace(b'"task":"pay"', b'"task":"rob"'), "task": "rob"}


def _of_another_key(genuine: bytes) -> Mapping[str, Any]:
    message = signed(NEW).decode(genuine)
    return {"body": signed(OTHER).encode(message)}


def _copied(genuine: bytes) -> Mapping[str, Any]:
    return {"body": genuine, "job_id": "copy"}


def _moved(genuine: bytes) -> Mapping[str, Any]:
    return {"body": genuine, "queue": "urgent"}


def _downgraded(genuine: bytes) -> Mapping[str, Any]:
    return {"body": genuine.replace(b"camora-signed 1 ", b"camora-signed 0 ")}


def _result(_: bytes) -> Mapping[str, Any]:
    return {"body": signed(NEW).encode_value({"v": 1, "id": "genuine", "task": "pay", "kwargs": {"amount": 9}})}


def signed(*keys: str, inner: Codec | None = None, **more: Any) -> SignedCodec:
    return SignedCodec(inner or JsonCodec(), keys, **more)


@pytest.mark.parametrize(
    ("attack", "reason", "text"),
    [
        (_unsigned, "unsigned", "only signed ones are read"),
        (_altered, "forged", "its signature does not belong to its contents"),
        (_renamed, "forged", "its signature does not belong to its contents"),
        (_of_another_key, "unknown_key", "signed with the key"),
        (_copied, "mismatch", "the message of job genuine was put into the broker again, as copy"),
        (_moved, "mismatch", "sent to the queue 'default', it was put into 'urgent'"),
        (_downgraded, "undecodable", "signed in format 0; this version reads format 1"),
        (_result, "forged", "it is a signed value, not a message"),
    ],
)
async def test_what_nobody_here_has_sent_is_a_dead_letter_that_says_why(
    broker_url: str,
    attack: Callable[[bytes], Mapping[str, Any]],
    reason: str,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = MemoryObserver()
    app = Camora(broker_url, codec=signed(NEW), queues=["urgent"], observers=[seen])
    ran: list[tuple[str, int]] = []

    @app.task(name="pay")
    async def pay(amount: int) -> int:
        ran.append(("pay", amount))
        return amount

    @app.task(name="rob")
    async def rob(amount: int) -> None:
        ran.append(("rob", amount))

    message = Message(id="genuine", task="pay", kwargs={"amount": 5}, created=app.clock.now_ms())
    made = {"job_id": "genuine", **attack(app.codec.encode(message))}
    async with app:
        await put(app, **made)
        await app.start(burst=True)
        letter = (await letters(app))[made["job_id"]]
        honest = await pay.dispatch(7)
        await app.start(burst=True)
        assert await honest.result(60) == 7  # results are signed, too
        # An operator may try it again; that makes it no more genuine.
        assert await app.requeue(letter.id)
        await app.start(burst=True)
        again = (await letters(app))[letter.id]
    assert ran == [("pay", 7)]
    for one in (letter, again):
        assert one.reason == reason
        assert one.error is not None
        assert text in one.error.text
    assert letter.body == made["body"]
    assert text in caplog.text
    buried = [event for event in seen.events if event.kind == "job.dead_lettered"]
    assert [event.reason for event in buried] == [reason, reason]  # type: ignore[attr-defined]


async def test_what_is_too_old_waits_for_an_operator(broker_url: str) -> None:
    app = Camora(broker_url, codec=signed(NEW, max_age=60))

    @app.task(name="pay")
    async def pay(amount: int) -> int:
        return amount

    created = app.clock.now_ms() - 61_000
    async with app:
        body = app.codec.encode(Message(id="late", task="pay", kwargs={"amount": 5}, created=created))
        await put(app, body, job_id="late")
        await app.start(burst=True)
        letter = (await letters(app))["late"]
        assert letter.reason == "stale"
        assert app.codec.decode(letter.body).kwargs == {"amount": 5}  # it can be looked at
        assert await app.requeue("late")
        await app.start(burst=True)
        assert await (await app.job("late")).result(60) == 5
        assert not await letters(app)


async def test_a_result_that_somebody_has_written_is_refused(tmp_path: Path) -> None:
    import sqlite3

    app = Camora(f"sqlite:///{tmp_path}/camora.db", codec=signed(NEW))

    @app.task(name="balance")
    async def balance() -> int:
        return 12

    async with app:
        job = await balance.dispatch()
        await app.start(burst=True)
        assert await job.result(60) == 12
        with sqlite3.connect(tmp_path / "camora.db") as db:
            names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            [table] = [
                name
                for name in names
                if {"value", "status"} <= {row[1] for row in db.execute(f"PRAGMA table_info({name})")}
            ]
            assert db.execute(f"UPDATE {table} SET value = ? WHERE id = ?", (b"9000000", job.id)).rowcount == 1
        db.close()
        with pytest.raises(DecodeError, match="not signed"):
            await job.result(60)


async def test_retries_and_schedules_stay_signed(broker_url: str) -> None:
    app = Camora(broker_url, codec=signed(NEW), retry_policy=RetryPolicy(max_tries=3, delay=0, jitter=False))

    @app.task(name="flaky")
    async def flaky(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise OSError("again")
        return ctx.attempt

    async with app, app.worker(settings=QUICK):
        job = await flaky.dispatch()  # type: ignore[call-arg]
        assert await job.result(60) == 3
        assert not await letters(app)


# A new key, with real workers

TASKS = """
from camora import Camora
app = Camora.from_toml()

@app.task(name="pay")
async def pay(amount: int) -> int:
    return amount
"""


@attrs.frozen
class Site:
    """A folder with the app, where the keys can be changed between one process and the next."""

    folder: Path
    start: Callable[[], WorkerProcess]

    def keys(self, *keys: str, more: str = "") -> Camora:
        """Write the file anew, and read it as a dispatcher that is started now does."""
        listed = ", ".join(json.dumps(key) for key in keys)
        text = f'[broker]\nurl = "sqlite:///{self.folder}/camora.db"\n'
        (self.folder / "camora.toml").write_text(f"{text}[signing]\nkeys = [{listed}]\n{more}")
        return Camora.from_toml(self.folder / "camora.toml")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "tasks.py").write_text(TASKS)
    made: list[WorkerProcess] = []

    class Here(WorkerProcess):
        cwd = tmp_path

    def start() -> WorkerProcess:
        made.append(Here(tmp_path, "", app="tasks:app").ready())
        return made[-1]

    yield Site(tmp_path, start)
    for worker in made:
        worker.destroy()


async def result(app: Camora, job_id: str) -> Any:
    return await (await app.job(job_id)).result(30)


async def paid(app: Camora, amount: int) -> int:
    job = await app.dispatch("pay", amount)
    value: int = await job.result(30)
    return value


async def test_a_new_key_step_by_step_loses_nothing(site: Site) -> None:
    """The three steps of the documents: all learn the new key, then sign with it, then forget the old one."""
    with_old = site.keys(OLD)
    workers = [site.start()]
    async with with_old:
        waiting = await with_old.options(delay=1).dispatch("pay", 0)
        assert await paid(with_old, 1) == 1
        with_both = site.keys(OLD, NEW)
        workers.append(site.start())
        async with with_both:
            workers.pop(0).destroy()
            assert [await paid(with_old, 2), await paid(with_both, 3)] == [2, 3]
            with_new_first = site.keys(NEW, OLD)
            workers.append(site.start())
            async with with_new_first:
                # Workers and dispatchers of the step before and of this one; whoever reads a result needs its key, too.
                for number in range(12):
                    assert await paid((with_both, with_new_first)[number % 2], number) == number
                assert await result(with_both, waiting.id) == 0
                workers.pop(0).destroy()
        with_new = site.keys(NEW)
        workers.append(site.start())
        async with with_new:
            workers.pop(0).destroy()
            assert await paid(with_new, 4) == 4
            assert not await letters(with_new)


async def test_a_step_that_was_forgotten_can_be_mended(site: Site) -> None:
    """Whoever signs with a key that a worker has not learned yet finds the jobs among the dead letters."""
    site.keys(OLD)
    worker = site.start()
    with_new = site.keys(NEW, OLD)
    async with with_new:
        job = await with_new.dispatch("pay", 5)
        worker.wait_for("signed with the key")
        with pytest.raises(JobFailed):
            await job.result(30)
        assert (await letters(with_new))[job.id].reason == "unknown_key"
        worker.destroy()
        site.start()
        done = forked.run(
            [sys.executable, "-m", "camora", "dead", "requeue", job.id, "--app", "tasks:app"],
            cwd=site.folder,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert await job.result(30) == 5


async def test_a_system_is_changed_over_while_it_runs(site: Site) -> None:
    bare = Camora(f"sqlite:///{site.folder}/camora.db")
    signing = site.keys(NEW, more="accept_unsigned = true\n")
    worker = site.start()
    async with bare, signing:
        assert [await paid(signing, 2)] == [2]
        job = await bare.dispatch("pay", 3)
        assert await result(signing, job.id) == 3
        strict = site.keys(NEW)
        worker.destroy()
        site.start()
        async with strict:
            refused = await bare.dispatch("pay", 4)
            assert await paid(strict, 5) == 5
            with pytest.raises(JobFailed, match="signed"):
                await refused.result(30)


# Secrets

PASSWORD = "correct-horse-battery"
TOKEN = "t0ken\u00e9-of-nobody"
Password = Annotated[str, Secret]


@attrs.frozen
class Account:
    user: str
    token: Password


def everything(value: Any) -> str:
    """All that can be shown of something: as text, as plain data, and field by field."""
    parts = [str(value), repr(value)]
    if isinstance(value, msgspec.Struct):
        parts += [repr(getattr(value, name)) for name in value.__struct_fields__]
    return "\n".join(parts)


def assert_clean(*values: Any) -> None:
    for value in values:
        text = everything(value)
        for secret in (PASSWORD, TOKEN, ascii(TOKEN)[1:-1]):
            assert secret not in text, text


def _raises(password: str, token: str) -> None:
    raise ValueError(f"{password!r} is wrong for {token}")


def _raises_from(password: str, token: str) -> None:
    try:
        raise ConnectionError(f"login with {token} failed")
    except ConnectionError as error:
        raise RuntimeError(f"cannot log in as {password}") from error


def _groups(password: str, token: str) -> None:
    raise ExceptionGroup("both", [ValueError(password), KeyError(token)])


def _retries(password: str, token: str) -> None:
    raise Retry(f"busy with {password} {token}", delay=0, policy=RetryPolicy(max_tries=2, delay=0))


def _notes(password: str, token: str) -> None:
    error = OSError("wrong")
    error.add_note(f"it was {password}, {token}")
    raise error


def _fails(password: str, token: str) -> Any:
    return Failure(f"{password} and {token}")


@pytest.mark.parametrize("execution", ["async", "thread"])
@pytest.mark.parametrize("act", [_raises, _raises_from, _groups, _retries, _notes, _fails])
async def test_no_failure_shows_a_secret(
    broker_url: str, act: Callable[[str, str], Any], execution: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = MemoryObserver()
    retries = RetryPolicy(max_tries=2, delay=0, jitter=False)
    app = Camora(broker_url, observers=[seen, LoggingObserver()], retry_policy=retries)

    if execution == "async":

        @app.task(name="login")
        async def login(ctx: Context, user: str, password: Password, account: Account) -> Any:
            app.logger.info("%r %s", ctx, ctx)
            return act(password, account.token)

    else:

        @app.task(name="login")
        def login(ctx: Context, user: str, password: Password, account: Account) -> Any:
            return act(password, account.token)

    call: Any = login.s
    signature = call(user="kappa", password=PASSWORD, account=Account("kappa", TOKEN))
    async with app, app.worker(settings=QUICK):
        job = await app.dispatch(signature)
        with pytest.raises(JobFailed) as failure:
            await job.result(60)
        info = await job.info()
        [letter] = (await letters(app)).values()
        await app.events.flush()
    assert letter.error is not None
    assert "***" in f"{letter.error.text}{letter.error.traceback}"
    assert_clean(signature, job, failure.value, failure.value.__dict__, info, info.error, letter.error)
    assert_clean(*seen.events)
    assert_clean(caplog.text, *[record.__dict__ for record in caplog.records])
    message = app.codec.decode(letter.body)
    assert message.kwargs["password"] == PASSWORD  # it travels as it is
    shown = mask_arguments(app.tasks.for_message("login", "default"), message)
    assert shown == {
        "args": [],
        "kwargs": {"user": "kappa", "password": "***", "account": {"user": "kappa", "token": "***"}},
    }
    assert_clean(repr(message), shown)


async def test_a_task_object_shows_none_either(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.register
    class Login(BaseTask):
        user: str
        password: Password

        async def execute(self) -> None:
            raise PermissionError(f"not {self.password}: {self!r}")

    async with app, app.worker(settings=QUICK):
        what = Login(user="kappa", password=PASSWORD)
        job = await app.dispatch(what)
        with pytest.raises(JobFailed) as failure:
            await job.result(60)
        [letter] = (await letters(app)).values()
    assert_clean(what, failure.value, letter.error)
    assert "PermissionError: not ***" in str(failure.value)


async def test_a_value_that_does_not_fit_is_not_quoted(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Camora(broker_url)

    @app.task(name="pin")
    async def pin(code: Annotated[int, Secret]) -> None: ...

    async with app, app.worker(settings=QUICK):
        with pytest.raises(PayloadError) as refused:
            await pin.dispatch(PASSWORD)  # type: ignore[arg-type]
        body = app.codec.encode(Message(id="odd", task="pin", kwargs={"code": PASSWORD}))
        await put(app, body, job_id="odd", task="pin")
        with pytest.raises(JobFailed) as failure:
            await (await app.job("odd")).result(60)
        letter = (await letters(app))["odd"]
    assert letter.reason == "payload"
    assert_clean(refused.value, failure.value, letter.error, caplog.text)
    assert "code" in str(failure.value)
