"""The first schema: camora-sql's revision 0002, and models that look at it."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models

from camora_django.names import table_name
from camora_django.schema import UpgradeSchema


def _text(**options: Any) -> models.CharField[Any, Any]:
    return models.CharField(max_length=255, **options)


class Migration(migrations.Migration):
    """Creates the tables, or adopts them."""

    initial = True
    dependencies: ClassVar[Any] = []
    operations: ClassVar[Any] = [
        UpgradeSchema("0002"),
        migrations.CreateModel(
            "Job",
            [
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                ("id", _text(unique=True)),
                ("queue", _text()),
                ("state", models.IntegerField(choices=[(0, "ready"), (1, "scheduled"), (2, "running")])),
                ("priority", models.IntegerField()),
                ("due", models.BigIntegerField()),
                ("deliveries", models.IntegerField()),
                ("cancel", models.BooleanField()),
                ("worker", _text()),
                ("expires", models.BigIntegerField(null=True)),
                ("key", models.TextField(null=True)),
                ("task", models.TextField()),
                ("body", models.BinaryField()),
            ],
            options={"managed": False, "db_table": table_name("jobs"), "default_permissions": ("view",)},
        ),
        migrations.CreateModel(
            "Result",
            [
                ("id", _text(primary_key=True, serialize=False)),
                ("status", models.CharField(max_length=16)),
                ("task", models.TextField()),
                ("queue", _text()),
                ("attempts", models.IntegerField()),
                ("created", models.BigIntegerField()),
                ("started", models.BigIntegerField()),
                ("finished", models.BigIntegerField()),
                ("worker", _text()),
                ("expires", models.BigIntegerField()),
                ("error", models.TextField(null=True)),
                ("value", models.BinaryField(null=True)),
            ],
            options={"managed": False, "db_table": table_name("results"), "default_permissions": ("view",)},
        ),
        migrations.CreateModel(
            "DeadLetter",
            [
                ("id", _text(primary_key=True, serialize=False)),
                ("queue", _text()),
                ("task", models.TextField()),
                ("reason", models.CharField(max_length=64)),
                ("error", models.TextField(null=True)),
                ("attempts", models.IntegerField()),
                ("deliveries", models.IntegerField()),
                ("died", models.BigIntegerField()),
                ("priority", models.IntegerField()),
                ("body", models.BinaryField()),
            ],
            options={
                "managed": False,
                "db_table": table_name("dead_letters"),
                "default_permissions": ("view",),
                "permissions": [("requeue_deadletter", "Can requeue dead letter")],
            },
        ),
    ]
