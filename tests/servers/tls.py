"""Certificates of a server of its own: nobody else trusts them."""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs

__all__ = ["Certificates", "new_certificates"]


@attrs.frozen
class Certificates:
    """Paths of PEM files: the authority, and what server and client show."""

    authority: Path
    server_certificate: Path
    server_key: Path
    certificate: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        """What a client needs that trusts this authority alone, and shows its own certificate if asked."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        return context


def new_certificates(folder: Path) -> Certificates:
    """A new authority, with a certificate for a server on this machine and one for a client."""
    import trustme

    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    client = authority.issue_cert("client@camora.test")
    certificates = Certificates(
        *(folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key"))
    )
    authority.cert_pem.write_to_path(str(certificates.authority))
    server.cert_chain_pems[0].write_to_path(str(certificates.server_certificate))
    server.private_key_pem.write_to_path(str(certificates.server_key))
    client.cert_chain_pems[0].write_to_path(str(certificates.certificate))
    client.private_key_pem.write_to_path(str(certificates.key))
    return certificates
