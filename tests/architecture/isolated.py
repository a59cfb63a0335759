"""Run in an environment that holds built wheels only: the core, or the core and one plugin."""

import asyncio
import importlib
import math
import subprocess
import sys
import tempfile

from camora import Camora
from camora.errors import BrokerUnavailable


async def work_with_models() -> None:
    from camora_pydantic import PydanticTask
    from pydantic import BaseModel, Field

    class Item(BaseModel):
        price: int = Field(gt=0)

    class Buy(PydanticTask):
        items: list[Item]

        async def execute(self) -> Item:
            return self.items[0]

    app = Camora()
    app.register(Buy)
    async with app, app.worker():
        assert await (await app.dispatch(Buy(items=[Item(price=3)]))).result(60) == Item(price=3)


async def work(url: str) -> None:
    app = Camora(url)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    elsewhere = app.register(math.sqrt, name="sqrt", execution="process")
    async with app, app.worker():
        assert await (await add.dispatch(1, 2)).result(60) == 3
        assert await (await elsewhere.dispatch(4.0)).result(30) == 2.0


def work_in_django(file: str) -> None:
    """The app of a project without any settings of Camora's."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": file}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "camora_django"],
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from camora_django import app

    app.register(math.sqrt, name="sqrt", execution="sync")
    job = app.dispatch_sync("sqrt", 9.0)

    async def finish() -> float:
        async with app, app.worker():
            return await (await app.job(job.id)).result(30)

    assert asyncio.run(finish()) == 3.0


async def refuse(url: str, address: str = "") -> None:
    """There is no server here: the whole way to one must be there, and say so."""
    app = Camora(url)
    app.register(math.sqrt, name="sqrt")
    try:
        async with app:
            await app.dispatch("sqrt", 4.0)
    except BrokerUnavailable as error:
        if (address or url) not in str(error):
            sys.exit(f"what is away? {error}")
    else:
        sys.exit(f"{url} answered")


def main() -> None:
    plugin = sys.argv[1] if len(sys.argv) > 1 else None
    asyncio.run(work("memory://"))
    listed = subprocess.run([sys.executable, "-m", "camora", "plugins", "--json"], capture_output=True, check=True)
    assert b'"builtin"' in listed.stdout, listed.stdout
    if plugin == "camora_sql":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(work(f"sqlite:///{folder}/camora.db"))
    elif plugin == "camora_redis":
        asyncio.run(refuse("redis://127.0.0.1:1/0"))
    elif plugin == "camora_servicebus":
        asyncio.run(refuse("servicebus://name:key@127.0.0.1:1?emulator=true", "servicebus://127.0.0.1:1"))
    elif plugin == "camora_django":
        with tempfile.TemporaryDirectory() as folder:
            work_in_django(f"{folder}/shop.sqlite3")
    elif plugin == "camora_pydantic":
        asyncio.run(work_with_models())
    elif plugin is None:
        try:
            importlib.import_module("sqlalchemy")
        except ModuleNotFoundError:
            pass
        else:
            sys.exit("the core alone has brought SQLAlchemy along")
    print("works:", "camora", plugin or "")


if __name__ == "__main__":
    main()
