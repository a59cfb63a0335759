"""Why no connection comes about, in words that say what to do."""

from __future__ import annotations

import re
import socket
import ssl

from camora_amqp.errors import Refused, WireLost
from camora_amqp.settings import Address

__all__ = ["in_words"]

_LIMIT = re.compile("limit|is down|not running", re.IGNORECASE)
"""What passes: too many connections, and virtual hosts that recover."""


def in_words(error: Exception, address: Address, where: str) -> WireLost | Refused:
    """What ended the attempt to connect: `Refused` for what no waiting mends, else `WireLost`."""
    if isinstance(error, Refused):
        return _refused(error, address, where)
    if isinstance(error, WireLost):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refused(0, f"{where}: its certificate is not trusted: {error.verify_message}. Correct the host, or add "
                          "cafile=… with the authority that has signed it")  # fmt: skip
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
            return Refused(0, f"{where}: it does not speak TLS: write amqp for amqps, or the port for TLS")
        return Refused(0, f"{where}: TLS does not come about: {error.reason or error}")
    if isinstance(error, socket.gaierror):
        return WireLost(f"{where}: the name of the host is not known ({error.strerror})")
    if isinstance(error, ConnectionRefusedError):
        return WireLost(f"{where}: nothing listens there: start the server, or correct host and port")
    return WireLost(f"{where}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}")


def _refused(error: Refused, address: Address, where: str) -> WireLost | Refused:
    user, vhost = address.user, address.vhost
    match error.code:
        case 403:
            text = f"user name or password are wrong: user {user!r} is not let in"
            if user == "guest":
                text += "; guest is let in only from the server's own machine"
        case 530 if _LIMIT.search(error.text):
            return WireLost(f"{where}: {error}")
        case 530 if "not found" in error.text:
            text = f"there is no virtual host {vhost!r}: correct the URL, or rabbitmqctl add_vhost {vhost!r}"
        case 530:
            text = (
                f"user {user!r} may not use virtual host {vhost!r}: "
                f"rabbitmqctl set_permissions -p {vhost!r} {user!r} '.*' '.*' '.*'"
            )
        case 0:
            return error
        case _:
            return WireLost(f"{where}: {error}")
    return Refused(error.code, f"{where}: {text}")
