"""An app of the project's own making, which `CAMORA = "shop.own.app"` names."""

from camora_django import DjangoCamora

app = DjangoCamora("django://default", name="own", queues=["parcels"])
