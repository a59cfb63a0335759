"""Dispatching, as a project's own tests see it: over Django's connection, and so into their database."""

from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import async_to_sync
from camora.errors import ConfigurationError, PayloadError
from camora_django import app
from camora_django.models import Job
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import TestCase, TransactionTestCase
from django.test.utils import CaptureQueriesContext

from shop.models import Order
from shop.tasks import ship, ship_async


def orders() -> list[str]:
    return sorted(Order.objects.values_list("item", flat=True))


def jobs() -> list[str]:
    return sorted(Job.objects.values_list("id", flat=True))


class Transactions(TransactionTestCase):
    def setUp(self) -> None:
        Job.objects.all().delete()

    def test_a_dispatch_outside_of_a_transaction_is_committed(self) -> None:
        job = ship.dispatch_sync(1)
        self.assertFalse(connection.in_atomic_block)
        connection.close_if_unusable_or_obsolete()
        self.assertEqual(jobs(), [job.id])

    def test_a_dispatch_is_committed_with_its_transaction(self) -> None:
        with transaction.atomic():
            made = Order.objects.create(item="fork")
            job = ship.dispatch_sync(made.pk)
        self.assertEqual((orders(), jobs()), (["fork"], [job.id]))

    def test_a_dispatch_is_rolled_back_with_its_transaction(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            ship.dispatch_sync(Order.objects.create(item="fork").pk)
            self.assertEqual(len(jobs()), 1)
            raise ZeroDivisionError
        self.assertEqual((orders(), jobs()), ([], []))

    def test_a_savepoint_takes_its_own_dispatches_with_it(self) -> None:
        with transaction.atomic():
            kept = ship.dispatch_sync(1)
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                ship.dispatch_sync(2)
                raise ZeroDivisionError
            also = ship.dispatch_sync(3)
        self.assertEqual(jobs(), sorted([kept.id, also.id]))

    def test_the_transaction_goes_on_after_a_dispatch_that_is_refused(self) -> None:
        with transaction.atomic():
            Order.objects.create(item="fork")
            with self.assertRaises(PayloadError):
                ship.dispatch_sync()
        self.assertEqual((orders(), jobs()), (["fork"], []))

    def test_a_broken_transaction_is_said_to_be_one(self) -> None:
        with self.assertRaises(transaction.TransactionManagementError), transaction.atomic():
            with self.assertRaises(ZeroDivisionError), transaction.atomic(savepoint=False):
                raise ZeroDivisionError
            ship.dispatch_sync(1)
        self.assertEqual(jobs(), [])

    def test_asynchronous_code_that_is_waited_for_is_in_the_transaction_of_who_waits(self) -> None:
        async def send() -> str:
            first = await ship_async.dispatch(1)
            second = await app.dispatch(ship_async, 2)
            third = await app.options(priority=3).dispatch("ship_async", 3)
            assert len({first.id, second.id, third.id}) == 3
            return first.id

        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            async_to_sync(send)()
            self.assertEqual(len(jobs()), 3)
            raise ZeroDivisionError
        self.assertEqual(jobs(), [])
        first = async_to_sync(send)()
        self.assertIn(first, jobs())
        self.assertEqual(len(jobs()), 3)

    def test_many_that_are_waited_for_are_in_the_transaction_too(self) -> None:
        async def later() -> AsyncIterator[Any]:
            for number in range(3):
                yield ship.s(number)

        async def send() -> None:
            await app.dispatch_many(ship_async.s(number) for number in range(3))
            await app.dispatch_many(later())

        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            async_to_sync(send)()
            self.assertEqual(len(jobs()), 6)
            raise ZeroDivisionError
        self.assertEqual(jobs(), [])

    def test_the_options_of_a_dispatch_are_those_of_any_other(self) -> None:
        with transaction.atomic():
            first = ship.options(key="order-8", priority=5, delay=60).dispatch_sync(8)
            again = ship.options(key="order-8").dispatch_sync(8)
        self.assertEqual(first.id, again.id)
        found = Job.objects.get()
        self.assertEqual((found.priority, found.state, found.key), (5, Job.State.SCHEDULED, "order-8"))

    def test_a_connection_can_be_named(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            ship.options(connection=connections["default"]).dispatch_sync(8)
            raise ZeroDivisionError
        self.assertEqual(jobs(), [])

    def test_a_worker_is_not_led_to_another_database_than_the_tests(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "'default'"):
            app.run_sync(_open())

    def test_missing_tables_are_named(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "manage.py migrate"), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE camora_alembic_version RENAME TO camora_elsewhere")
            ship.dispatch_sync(1)


async def _open() -> None:
    async with app:
        pass


class InATestCase(TestCase):
    """Which is one transaction around each test."""

    def test_a_view_dispatches(self) -> None:
        answer = self.client.get("/orders/fork").json()
        self.assertEqual(jobs(), [answer["job"]])

    def test_an_asynchronous_view_dispatches(self) -> None:
        answer = self.client.get("/orders/spoon/async").json()
        self.assertEqual(jobs(), [answer["job"]])

    async def test_an_asynchronous_test_dispatches(self) -> None:
        job = await ship_async.dispatch(1)
        self.assertEqual([found.id async for found in Job.objects.all()], [job.id])

    async def test_asynchronous_code_is_told_to_wait(self) -> None:
        for dispatch in (ship, ship.options(connection=connections["default"])):
            with self.assertRaisesRegex(ConfigurationError, "ship: dispatch_sync blocks, .* use  await ….dispatch"):
                dispatch.dispatch_sync(1)

    def test_a_name_is_no_connection(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, r"give the connection: connections\['default'\]"):
            ship.options(connection="default").dispatch_sync(8)

    def test_what_was_dispatched_before_is_gone(self) -> None:
        self.assertEqual(jobs(), [])

    def test_djangos_log_has_the_statements(self) -> None:
        with CaptureQueriesContext(connection) as queries:
            job = ship.options(key="order-8").dispatch_sync(8)
        said = " ".join(query["sql"] for query in queries.captured_queries)
        self.assertIn(job.id, said)
        self.assertIn("order-8", said)

    def test_a_call_is_a_call(self) -> None:
        from shop.tasks import fail

        with self.assertRaisesRegex(ValueError, "no order 3"):
            fail(3)

    def test_checks_find_nothing(self) -> None:
        call_command("check", "--fail-level", "WARNING")
