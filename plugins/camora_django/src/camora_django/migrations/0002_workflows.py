"""camora-sql's revision 0003: workflows and journals, in tables beside the old ones."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations

from camora_django.schema import UpgradeSchema


class Migration(migrations.Migration):
    """Creates the tables, or adopts them."""

    dependencies: ClassVar[Any] = [("camora_django", "0001_initial")]
    operations: ClassVar[Any] = [UpgradeSchema("0003")]
