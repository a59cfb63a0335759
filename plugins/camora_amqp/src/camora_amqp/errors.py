"""What can go wrong between here and the server, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence

from camora.errors import BrokerUnavailable

__all__ = ["Refused", "WireLost", "unavailable"]


class WireLost(Exception):
    """The connection is gone, or in doubt. `sent`: what was asked for may have reached the server.

    `stored` says of each message of a batch whether the server has confirmed it all the same.
    """

    def __init__(self, text: str, *, sent: bool = False, stored: Sequence[bool] = ()) -> None:
        super().__init__(text)
        self.sent = sent
        self.stored = stored


class Refused(Exception):
    """The server said no: its code and its words, as in the close of a channel or a connection.

    https://www.rabbitmq.com/amqp-0-9-1-errata and the specification, section 1.1: 403 access refused, 404 not found,
    405 locked, 406 precondition failed, 530 not allowed … The code is 0 where it is not the server's word, but waiting
    does not help either: what listens there is something else, or its certificate is not trusted.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})" if code else text)
        self.code = code
        self.text = text


def unavailable(who: str, error: BaseException) -> BrokerUnavailable:
    """The error for a server that cannot be asked."""
    return BrokerUnavailable(f"{who}: {str(error) or type(error).__name__}")
