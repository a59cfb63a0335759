"""An app that knows nothing of Django, on a broker of Django's."""

from camora import Camora

app = Camora("django://default")


@app.task(name="pack")
def pack(order: int) -> None:
    """Never run."""
