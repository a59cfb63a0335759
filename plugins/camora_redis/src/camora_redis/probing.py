"""What listens at a port, for those who found something else than they expected."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

__all__ = ["speaks_plain", "speaks_tls", "wants_certificate"]


async def speaks_tls(host: str, port: int, timeout: float) -> bool:
    """Whether it answers a TLS handshake. Nothing is sent that way, so nobody's certificate is looked at."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port, ssl=_trusting())
    except (OSError, TimeoutError) as error:
        # One that refuses us by the rules of TLS does speak it.
        return isinstance(error, ssl.SSLError) and "ALERT" in str(error)
    await _closed(writer)
    return True


async def wants_certificate(host: str, port: int, timeout: float) -> bool:
    """Whether it speaks TLS only to those who show a certificate of their own."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=_trusting())
            try:
                # It says so after the handshake, and one that is content waits for us.
                await reader.read(1)
            finally:
                await _closed(writer)
    except (OSError, TimeoutError) as error:
        return isinstance(error, ssl.SSLError) and "ALERT" in str(error)
    return False


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def speaks_plain(host: str, port: int, timeout: float) -> bool:
    """Whether it answers a PING as Redis does, without TLS."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return (await reader.read(1)) in (b"+", b"-")
            finally:
                await _closed(writer)
    except (OSError, TimeoutError):
        return False


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
