"""The bars: what Camora is to reach. Printed as "pass" or "falls short"; nothing fails because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.runner import Figures

__all__ = ["BARS", "Bar", "Verdict", "judge"]


@dataclass(frozen=True)
class Bar:
    """`limit` is for the figure itself, or, with `times`, for its ratio to the highest of these entrants' in a run."""

    scenario: str
    entrant: str
    metric: str
    limit: float
    text: str
    at_least: bool = False
    times: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """`value` is None where the run did not measure it."""

    bar: Bar
    value: float | None

    @property
    def word(self) -> str:
        """pass, falls short, or not measured."""
        if self.value is None:
            return "not measured"
        good = self.value >= self.bar.limit if self.bar.at_least else self.value <= self.bar.limit
        return "pass" if good else "falls short"


RAW = ("raw_redis",)
RAW_PG = ("raw_pg_lease",)
RAW_AMQP = ("raw_aiopika",)
RAW_SERVICEBUS = ("raw_servicebus",)
RAW_AMQP_CLASSIC = ("raw_aiopika_classic",)
AMQP_PEERS = ("celery_amqp", "faststream_amqp", "taskiq_amqp")
AMQP_CLASSIC_PEERS = ("celery_amqp_classic", "dramatiq_amqp", "faststream_amqp_classic", "taskiq_amqp_classic")
REDIS_PEERS = (
    "arq",
    "celery_redis",
    "celery_redis_threads",
    "dramatiq_redis",
    "huey_redis",
    "oxalis",
    "repid_redis",
    "saq_redis",
    "streaq",
    "taskiq_list",
    "taskiq_stream",
)

BARS: Sequence[Bar] = (
    Bar("w2", "camora_memory", "cpu_us", 12, "memory: worker CPU µs per no-op job, receive to settled"),
    Bar("w2", "camora_memory", "total_us", 25, "memory: CPU µs per no-op job, dispatch to settled"),
    Bar("w2", "camora_memory", "rate", 60_000, "memory: drained jobs a second", at_least=True),
    Bar("w2", "camora_sqlite", "rate", 25_000, "SQLite: drained jobs a second", at_least=True),
    Bar(
        "w2",
        "camora_sqlite",
        "rate",
        5,
        "SQLite: drain, times Huey without fsync",
        at_least=True,
        times=("huey_sqlite",),
    ),
    Bar(
        "w2",
        "camora_sqlite",
        "rate",
        5,
        "SQLite: drain, times Huey with fsync",
        at_least=True,
        times=("huey_sqlite_fsync",),
    ),
    Bar("w1", "camora_sqlite", "bulk", 50_000, "SQLite: bulk dispatch a second", at_least=True),
    Bar("w1", "camora_memory", "bulk", 50_000, "memory: bulk dispatch a second", at_least=True),
    Bar("idle", "camora_sqlite", "cpu_ms", 30, "SQLite: CPU ms of an idle worker in 20 s"),
    Bar("w3", "camora_sqlite", "p50", 6, "SQLite: dispatch to start across processes, median ms"),
    Bar("w4", "camora_sqlite", "seconds", 0.70, "SQLite: 5,000 sleeps of 10 ms, 100 at once, seconds"),
    Bar("idle", "camora_memory", "rss", 45, "RSS MiB of a worker without a backend library"),
    Bar("idle", "camora_sqlite", "rss", 60, "RSS MiB of a worker with SQLAlchemy"),
    Bar("w2", "camora_redis", "rate", 45_000, "Redis: drained jobs a second", at_least=True),
    Bar("w2", "camora_redis", "rate", 0.25, "Redis: drain, times raw", at_least=True, times=RAW),
    Bar("w2", "camora_redis", "rate", 3, "Redis: drain, times the best peer", at_least=True, times=REDIS_PEERS),
    Bar("w2r", "camora_redis", "cpu_us", 12, "Redis: worker CPU µs per job with its result"),
    Bar("w2c", "camora_redis", "sent", 0.1, "Redis: commands sent per job without result"),
    Bar("w2rc", "camora_redis", "sent", 1.1, "Redis: commands sent per job with its result"),
    Bar("w2x2", "camora_redis", "ratio", 1.6, "Redis: drain by two workers, times one", at_least=True),
    Bar("w1", "camora_redis", "bulk", 0.8, "Redis: bulk dispatch, times raw", at_least=True, times=RAW),
    Bar("w1", "camora_redis", "one", 0.9, "Redis: dispatch one by one, times raw", at_least=True, times=RAW),
    Bar("w3", "camora_redis", "p50", 1.5, "Redis: dispatch to start, median, times raw", times=RAW),
    Bar("w3", "camora_redis", "p99", 2, "Redis: dispatch to start, p99, times raw", times=RAW),
    Bar("w4", "camora_redis", "seconds", 0.60, "Redis: 5,000 sleeps of 10 ms, 100 at once, seconds"),
    Bar("w5", "camora_redis", "rate", 20_000, "Redis: awaited results a second", at_least=True),
    Bar("idle", "camora_redis", "cpu_ms", 5, "Redis: CPU ms of an idle worker in 20 s"),
    Bar("idle", "camora_redis", "commands_s", 0.6, "Redis: commands a second that an idle worker sends"),
    Bar("idle", "camora_redis", "rss", 45, "Redis: RSS MiB of an idle worker"),
    Bar("delayed", "camora_redis", "p50_ratio", 1.2, "Redis: W3 median with 100,000 delayed, times without"),
    Bar("delayed", "camora_redis", "p99_ratio", 1.5, "Redis: W3 p99 with 100,000 delayed, times without"),
    Bar(
        "delayed", "camora_redis", "rate_ratio", 0.9, "Redis: drain with 100,000 delayed, times without", at_least=True
    ),
    Bar("delayed", "camora_redis", "cpu_ms", 5, "Redis: idle CPU ms in 20 s with 100,000 delayed"),
    Bar("delayed", "camora_redis", "commands_s", 0.6, "Redis: idle commands a second with 100,000 delayed"),
    Bar("w2", "camora_postgres", "rate", 26_000, "PostgreSQL: drained jobs a second", at_least=True),
    Bar("w2", "camora_postgres", "rate", 0.6, "PostgreSQL: drain, times raw leases", at_least=True, times=RAW_PG),
    Bar("w2", "camora_postgres", "rate", 1.7, "PostgreSQL: drain, times PgQueuer", at_least=True, times=("pgqueuer",)),
    Bar("w2", "camora_postgres", "cpu_us", 15, "PostgreSQL: worker CPU µs per job"),
    Bar("w2c", "camora_postgres", "sent", 0.05, "PostgreSQL: statements sent per job"),
    Bar("w1", "camora_postgres", "bulk", 0.5, "PostgreSQL: bulk dispatch, times raw", at_least=True, times=RAW_PG),
    Bar("w1", "camora_postgres", "one", 0.8, "PostgreSQL: dispatch one by one, times raw", at_least=True, times=RAW_PG),
    Bar("w3", "camora_postgres", "p50", 1.5, "PostgreSQL: dispatch to start, median, times raw", times=RAW_PG),
    Bar("w3", "camora_postgres", "p99", 1.5, "PostgreSQL: dispatch to start, p99, times raw", times=RAW_PG),
    Bar("w4", "camora_postgres", "seconds", 0.65, "PostgreSQL: 5,000 sleeps of 10 ms, 100 at once, seconds"),
    Bar(
        "w5",
        "camora_postgres",
        "rate",
        2,
        "PostgreSQL: awaited results, times SAQ",
        at_least=True,
        times=("saq_postgres",),
    ),
    Bar("idle", "camora_postgres", "cpu_ms", 30, "PostgreSQL: CPU ms of an idle worker in 20 s"),
    Bar("delayed", "camora_postgres", "p50_ratio", 1.5, "PostgreSQL: W3 median with 100,000 delayed, times without"),
    Bar("delayed", "camora_postgres", "p99_ratio", 1.5, "PostgreSQL: W3 p99 with 100,000 delayed, times without"),
    Bar("delayed", "camora_postgres", "cpu_ms", 30, "PostgreSQL: idle CPU ms in 20 s with 100,000 delayed"),
    Bar(
        "backlog",
        "camora_postgres",
        "ratio",
        0.8,
        "PostgreSQL: drain with 1,000,000 in store, times without",
        at_least=True,
    ),
    Bar(
        "backlog", "camora_sqlite", "ratio", 0.8, "SQLite: drain with 1,000,000 in store, times without", at_least=True
    ),
    Bar("bloat", "camora_postgres", "again", 1.1, "PostgreSQL: size after a second drain and VACUUM, times the first"),
    Bar("horizon", "camora_postgres", "p99_ratio", 5, "PostgreSQL: W3 p99 behind an open transaction, times before"),
    Bar(
        "horizon",
        "camora_postgres",
        "rate_ratio",
        0.2,
        "PostgreSQL: last fifth of a drain behind an open transaction, times the first",
        at_least=True,
    ),
    Bar("w2", "camora_amqp", "rate", 11_500, "RabbitMQ: drained jobs a second", at_least=True),
    Bar("w2", "camora_amqp", "rate", 0.8, "RabbitMQ: drain, times raw aio-pika", at_least=True, times=RAW_AMQP),
    Bar("w2", "camora_amqp", "rate", 1.5, "RabbitMQ: drain, times the best peer", at_least=True, times=AMQP_PEERS),
    Bar("w1", "camora_amqp", "bulk", 0.8, "RabbitMQ: bulk dispatch, times raw aio-pika", at_least=True, times=RAW_AMQP),
    Bar("w3", "camora_amqp", "p50", 1.5, "RabbitMQ: dispatch to start, median, times raw aio-pika", times=RAW_AMQP),
    Bar("w4", "camora_amqp", "seconds", 0.70, "RabbitMQ: 5,000 sleeps of 10 ms, 100 at once, seconds"),
    Bar(
        "w2",
        "camora_amqp_classic",
        "rate",
        0.8,
        "RabbitMQ, classic: drain, times raw aio-pika",
        at_least=True,
        times=RAW_AMQP_CLASSIC,
    ),
    Bar(
        "w2",
        "camora_amqp_classic",
        "rate",
        1.5,
        "RabbitMQ, classic: drain, times the best peer",
        at_least=True,
        times=AMQP_CLASSIC_PEERS,
    ),
    Bar(
        "w1",
        "camora_amqp_classic",
        "bulk",
        0.8,
        "RabbitMQ, classic: bulk dispatch, times raw aio-pika",
        at_least=True,
        times=RAW_AMQP_CLASSIC,
    ),
    Bar(
        "w3",
        "camora_amqp_classic",
        "p50",
        1.5,
        "RabbitMQ, classic: dispatch to start, median, times raw aio-pika",
        times=RAW_AMQP_CLASSIC,
    ),
    Bar(
        "w1",
        "camora_servicebus",
        "bulk",
        0.7,
        "Service Bus: bulk dispatch, times raw azure-servicebus",
        at_least=True,
        times=RAW_SERVICEBUS,
    ),
    Bar(
        "w2",
        "camora_servicebus",
        "rate",
        0.7,
        "Service Bus: drain, times raw azure-servicebus",
        at_least=True,
        times=RAW_SERVICEBUS,
    ),
    Bar(
        "w3",
        "camora_servicebus",
        "p50",
        1.5,
        "Service Bus: dispatch to start, median, times raw azure-servicebus",
        times=RAW_SERVICEBUS,
    ),
    Bar("import", "camora_memory", "ms", 100, "import camora, ms"),
    Bar("import", "camora_memory", "backends", 0, "import camora: backend libraries loaded"),
)


def judge(medians: Mapping[str, Mapping[str, Figures]]) -> list[Verdict]:
    """Each bar against the medians, by scenario and entrant."""
    verdicts = []
    for bar in BARS:
        of_scenario = medians.get(bar.scenario, {})
        value = of_scenario.get(bar.entrant, {}).get(bar.metric)
        if bar.times and value is not None:
            others = [of_scenario[name][bar.metric] for name in bar.times if bar.metric in of_scenario.get(name, {})]
            value = value / max(others) if others else None
        verdicts.append(Verdict(bar, value))
    return verdicts
