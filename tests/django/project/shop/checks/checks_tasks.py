"""The Tasks interface on this side of the worker."""

from datetime import UTC, datetime, timedelta

from asgiref.sync import async_to_sync
from camora_django.interface import Task, TaskResultDoesNotExist, TaskResultStatus, task_backends, task_enqueued
from camora_django.models import Job
from camora_django.tasks import CamoraBackend
from django.core import checks
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings

from shop import mails

try:
    from django.tasks.exceptions import InvalidTask, TaskResultMismatch
except ImportError:
    from django_tasks.exceptions import InvalidTaskError as InvalidTask
    from django_tasks.exceptions import TaskResultMismatch


class Interface(TestCase):
    def test_all_that_can_be_supported_is(self) -> None:
        backend = task_backends["default"]
        self.assertIsInstance(backend, CamoraBackend)
        self.assertTrue(backend.supports_defer)
        self.assertTrue(backend.supports_async_task)
        self.assertTrue(backend.supports_get_result)
        self.assertTrue(backend.supports_priority)

    def test_a_result_before_it_has_run(self) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        result = mails.thank.enqueue(7)
        found = mails.thank.get_result(result.id)
        self.assertEqual((found.id, found.args, found.kwargs, found.backend), (result.id, [7], {}, "default"))
        self.assertEqual((found.status, found.attempts, found.is_finished), (TaskResultStatus.READY, 0, False))
        self.assertEqual((found.started_at, found.finished_at, found.last_attempted_at), (None, None, None))
        self.assertLess(before, found.enqueued_at)
        self.assertEqual((found.task, result.task), (mails.thank, mails.thank))
        with self.assertRaisesRegex(ValueError, "not finished"):
            _ = found.return_value
        found.refresh()
        async_to_sync(found.arefresh)()

    def test_priorities_of_djangos_scale_are_kept_apart(self) -> None:
        for priority in (-100, 0, 57, 58, 100):
            mails.thank.using(priority=priority).enqueue(1)
        mails.remind.enqueue(1)
        kept = list(Job.objects.order_by("-priority").values_list("priority", flat=True))
        self.assertEqual(kept, [100, 58, 57, 0, -7, -100])
        results = [mails.thank.get_result(job.id) for job in Job.objects.filter(queue="default").order_by("priority")]
        self.assertEqual([result.task.priority for result in results], [-100, 0, 57, 58, 100])

    def test_queues_and_moments(self) -> None:
        later = datetime.now(UTC) + timedelta(hours=1)
        result = mails.thank.using(run_after=later, queue_name="mail").enqueue(1)
        job = Job.objects.get(id=result.id)
        self.assertEqual((job.queue, job.state), ("mail", Job.State.SCHEDULED))
        self.assertLess(abs(job.due_at - later), timedelta(milliseconds=2))
        found = mails.thank.get_result(result.id)
        self.assertEqual(found.task.queue_name, "mail")
        self.assertLess(abs(found.task.run_after - later), timedelta(milliseconds=2))

    def test_what_is_refused(self) -> None:
        naive = datetime(2030, 1, 1)  # noqa: DTZ001
        for wrong in (
            {"priority": 101},
            {"priority": -101},
            {"priority": 0.5},
            {"queue_name": "nowhere"},
            {"run_after": naive},
        ):
            with self.subTest(wrong), self.assertRaises(InvalidTask):
                mails.thank.using(**wrong)
        with self.assertRaises(TypeError):
            mails.thank.enqueue(object())
        with self.assertRaises(InvalidTask):
            Task(func=lambda: 1, priority=0, backend="default", queue_name="default", run_after=None)

    def test_results_that_there_are_not(self) -> None:
        result = mails.thank.enqueue(1)
        with self.assertRaises(TaskResultMismatch):
            mails.remind.get_result(result.id)
        with self.assertRaises(TaskResultDoesNotExist):
            mails.thank.get_result("no-such-task")
        with self.assertRaises(TaskResultDoesNotExist):
            async_to_sync(mails.thank.aget_result)("no-such-task")

    def test_a_job_that_is_no_task_has_no_result_here(self) -> None:
        from shop.tasks import ship

        with self.assertRaises(TaskResultDoesNotExist):
            mails.thank.get_result(ship.dispatch_sync(1).id)

    def test_the_signal(self) -> None:
        heard = []

        def hear(sender: type, task_result: object, **_: object) -> None:
            heard.append((sender, task_result))

        task_enqueued.connect(hear)
        try:
            result = mails.thank.enqueue(1)
        finally:
            task_enqueued.disconnect(hear)
        self.assertEqual(heard, [(CamoraBackend, result)])

    async def test_enqueueing_asynchronously(self) -> None:
        result = await mails.remind.aenqueue(1, words="now")
        found = await mails.remind.aget_result(result.id)
        self.assertEqual((found.args, found.kwargs, found.task.queue_name), ([1], {"words": "now"}, "mail"))

    def test_the_checks(self) -> None:
        self.assertEqual(list(task_backends["default"].check()), [])
        wrong = {"default": {"BACKEND": "camora_django.tasks.CamoraBackend", "OPTIONS": {"spee": 1}}}
        with override_settings(TASKS=wrong):
            [found] = list(task_backends["default"].check())
        self.assertIsInstance(found, checks.Error)
        self.assertIn("'spee'", found.msg)


class InTransactions(TransactionTestCase):
    def test_it_is_rolled_back_with_its_transaction(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            result = mails.thank.enqueue(1)
            self.assertEqual(mails.thank.get_result(result.id).id, result.id)
            raise ZeroDivisionError
        with self.assertRaises(TaskResultDoesNotExist):
            mails.thank.get_result(result.id)
