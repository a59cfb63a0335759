"""What the tests ask of the process that forks: one message of JSON, with three descriptors."""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

__all__ = ["STARTUP", "receive", "send"]

_SIZE = struct.Struct(">I")

STARTUP = ("PYTHON", "LC_", "LD_", "OPENSSL", "MALLOC", "LANG", "TZ")
"""Beginnings of variables that a process reads while it starts: too late for one that is forked."""


def send(to: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    data = json.dumps(message).encode()
    socket.send_fds(to, [_SIZE.pack(len(data))], descriptors)
    to.sendall(data)


def receive(of: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """None when the other side has gone."""
    head, descriptors, _, _ = socket.recv_fds(of, _SIZE.size, 3)
    if not head:
        return None
    [size] = _SIZE.unpack(head)
    data = b""
    while len(data) < size:
        part = of.recv(size - len(data))
        if not part:
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        data += part
    return json.loads(data), descriptors
