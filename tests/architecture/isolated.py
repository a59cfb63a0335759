"""Run in an environment that holds built wheels only: the core, or the core and one plugin."""

import asyncio
import importlib
import sys
import tempfile

from camora import Camora


async def work(url: str) -> None:
    app = Camora(url)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app, app.worker():
        assert await (await add.dispatch(1, 2)).result(10) == 3


def main() -> None:
    plugin = sys.argv[1] if len(sys.argv) > 1 else None
    asyncio.run(work("memory://"))
    if plugin == "camora_sql":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(work(f"sqlite:///{folder}/camora.db"))
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
