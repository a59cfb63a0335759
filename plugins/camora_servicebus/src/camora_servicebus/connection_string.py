"""A connection string, as the portal gives it, taken apart. It is a secret: nothing here shows it."""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs
from camora.errors import SettingsError

__all__ = ["Parts"]

_KNOWN = {
    "endpoint": "Endpoint",
    "sharedaccesskeyname": "SharedAccessKeyName",
    "sharedaccesskey": "SharedAccessKey",
    "sharedaccesssignature": "SharedAccessSignature",
    "entitypath": "EntityPath",
    "usedevelopmentemulator": "UseDevelopmentEmulator",
    "transporttype": "TransportType",
}
"""`TransportType` is read by clients for other languages; what is to be used here says the setting `transport`."""


@attrs.frozen(kw_only=True)
class Parts:
    """`host` may have a port, of an emulator. `entity` is empty for the whole namespace."""

    host: str
    key_name: str = ""
    key: str = attrs.field(default="", repr=False)
    signature: str = attrs.field(default="", repr=False)
    entity: str = ""
    emulator: bool = False

    @classmethod
    def of(cls, text: str, where: str) -> Parts:
        """Raises `SettingsError`, which names what is wrong and never shows a value."""
        given = _pairs(text, where)
        host = _host(given.get("endpoint", ""), where)
        name, key = given.get("sharedaccesskeyname", ""), given.get("sharedaccesskey", "")
        signature = given.get("sharedaccesssignature", "")
        if signature and (key or name):
            raise SettingsError(f"{where}: has SharedAccessSignature and SharedAccessKey: keep one of them")
        if not signature and not (name and key):
            lacks = "SharedAccessKey" if name else "SharedAccessKeyName" if key else "SharedAccessKeyName and -Key"
            raise SettingsError(
                f"{where}: lacks {lacks}. Without a key, give the URL alone, servicebus://{host}: then credentials of "
                "Microsoft Entra ID are asked"
            )
        emulator = given.get("usedevelopmentemulator", "").lower() == "true"
        return cls(
            host=host,
            key_name=name,
            key=key,
            signature=signature,
            entity=given.get("entitypath", "").strip("/"),
            emulator=emulator,
        )


def _pairs(text: str, where: str) -> dict[str, str]:
    if not text.strip():
        raise SettingsError(f"{where}: it is empty; expected Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…")
    given: dict[str, str] = {}
    for part in text.strip().strip(";").split(";"):
        name, equals, value = part.partition("=")
        known = name.strip().lower()
        if not equals or known not in _KNOWN:
            # What stands before the "=" may be part of a key that was cut in two: it is not shown.
            raise SettingsError(
                f"{where}: expected Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=… with other parts only "
                f"of {', '.join(_KNOWN.values())}"
            )
        if known in given:
            raise SettingsError(f"{where}: {_KNOWN[known]} stands there twice")
        given[known] = value.strip()
    return given


def _host(endpoint: str, where: str) -> str:
    if not endpoint:
        raise SettingsError(f"{where}: lacks Endpoint=sb://NAME.servicebus.windows.net")
    parts = urlsplit(endpoint if "://" in endpoint else f"sb://{endpoint}")
    if not parts.netloc or "@" in parts.netloc:
        raise SettingsError(f"{where}: its Endpoint names no host; expected Endpoint=sb://NAME.servicebus.windows.net")
    return parts.netloc
