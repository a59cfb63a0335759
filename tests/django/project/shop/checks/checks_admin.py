"""The pages of the admin, and who may do what there."""

from camora.outcome import ErrorInfo
from camora_django import app
from camora_django.models import DeadLetter, Job, Result
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import TestCase

from shop.tasks import fail

_LIST = "/admin/camora_django/{}/"
_VIEW = ("view_job", "view_result", "view_deadletter")


def bury(order: int) -> str:
    """A job that has failed, as a worker leaves it."""
    import msgspec

    job = fail.dispatch_sync(order)
    row = Job.objects.get(id=job.id)
    error = ErrorInfo(type="ValueError", text=f"no order {order} <b>", traceback="Traceback: in fail")
    text = msgspec.json.encode(error).decode()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO camora_dead_letters (id, queue, task, reason, error, attempts, deliveries, died, priority, "
            "key_ttl, job_task, body) "
            "VALUES (%s, 'default', 'fail', 'failed', %s, 1, 1, 1700000000000, 4, 0, 'fail', %s)",
            [job.id, text, bytes(row.body)],
        )
        cursor.execute(
            "INSERT INTO camora_results (id, status, final, task, queue, kept, attempts, created, started, finished, "
            "worker, ttl, expires, error) VALUES (%s, 'failed', 1, 'fail', 'default', 1, 1, 1700000000000, "
            "1700000001000, 1700000002000, 'w', 60, 9000000000000, %s)",
            [job.id, text],
        )
    row.delete()
    return job.id


class Pages(TestCase):
    def log_in(self, *permissions: str, superuser: bool = False) -> None:
        user = User.objects.create(username="ada", is_staff=True, is_superuser=superuser)
        for name in permissions:
            user.user_permissions.add(Permission.objects.get(content_type__app_label="camora_django", codename=name))
        self.client.force_login(user)

    def test_the_lists_and_the_pages_in_them(self) -> None:
        self.log_in(*_VIEW)
        job, dead = fail.dispatch_sync(1), bury(2)
        place = Job.objects.get(id=job.id).pk
        for name, where, expected in (
            ("job", f"{place}/change/", job.id),
            ("result", f"{dead}/change/", "no order 2 &lt;b&gt;"),
            ("deadletter", f"{dead}/change/", "Traceback: in fail"),
        ):
            with self.subTest(name):
                listed = self.client.get(_LIST.format(name))
                self.assertContains(listed, "fail")
                self.assertNotContains(listed, "addlink")
                if name != "job":
                    self.assertContains(listed, "Nov. 14, 2023")
                page = self.client.get(_LIST.format(name) + where)
                self.assertContains(page, expected)
                self.assertNotContains(page, "_save")
                self.assertNotContains(page, "deletelink")
                self.assertEqual(self.client.get(_LIST.format(name) + "add/").status_code, 403)
                self.assertEqual(self.client.post(_LIST.format(name) + where, {"task": "x"}).status_code, 403)

    def test_filters_and_search(self) -> None:
        self.log_in(*_VIEW)
        job = fail.dispatch_sync(1)
        self.assertContains(self.client.get(_LIST.format("job"), {"queue": "default", "state__exact": "0"}), job.id)
        self.assertNotContains(self.client.get(_LIST.format("job"), {"queue": "mail"}), job.id)
        self.assertContains(self.client.get(_LIST.format("job"), {"q": job.id}), job.id)

    def test_who_may_not_view_sees_nothing(self) -> None:
        self.log_in("view_job")
        self.assertEqual(self.client.get(_LIST.format("job")).status_code, 200)
        self.assertEqual(self.client.get(_LIST.format("result")).status_code, 403)
        self.assertEqual(self.client.get(_LIST.format("deadletter")).status_code, 403)

    def requeue(self, *ids: str) -> str:
        answer = self.client.post(
            _LIST.format("deadletter"), {"action": "requeue", "_selected_action": ids, "index": 0}, follow=True
        )
        return answer.content.decode()

    def test_requeueing_needs_a_permission(self) -> None:
        self.log_in(*_VIEW)
        dead = bury(2)
        self.assertNotContains(self.client.get(_LIST.format("deadletter")), "Requeue")
        self.requeue(dead)
        self.assertEqual(list(DeadLetter.objects.values_list("id", flat=True)), [dead])

    def test_requeueing(self) -> None:
        self.log_in(*_VIEW, "requeue_deadletter")
        first, second, left = bury(2), bury(3), bury(4)
        self.assertContains(self.client.get(_LIST.format("deadletter")), "Requeue")
        self.assertIn("2 dead letters were put back", self.requeue(first, second, "no-such-letter"))
        self.assertEqual(sorted(Job.objects.values_list("id", flat=True)), sorted([first, second]))
        again = Job.objects.get(id=first)
        self.assertEqual((again.state, again.priority, again.task), (Job.State.READY, 4, "fail"))
        message = app.codec.decode(bytes(again.body))
        self.assertEqual((message.kwargs, message.attempt), ({"order": 2}, 1))
        self.assertEqual(list(DeadLetter.objects.values_list("id", flat=True)), [left])
        # The record of the failure would hide what the new run comes to.
        self.assertEqual(list(Result.objects.values_list("id", flat=True)), [left])

    def test_a_superuser_cannot_delete_either(self) -> None:
        self.log_in(superuser=True)
        dead = bury(2)
        self.assertEqual(self.client.get(_LIST.format("deadletter") + f"{dead}/delete/").status_code, 403)
        self.assertNotContains(self.client.get(_LIST.format("deadletter")), "delete_selected")
