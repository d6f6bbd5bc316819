"""Certificates for tests of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import trustme

from server.frontends.tls import TlsFiles


class Authority:
    """A certificate authority, and the files of a server that it vouches for."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.root = folder / "root.pem"
        self.files = TlsFiles(folder / "server.pem", folder / "server.key")
        self.mutual = TlsFiles(folder / "server.pem", folder / "server.key", self.root)
        self._ca.cert_pem.write_to_path(str(self.root))
        self.issue()

    def issue(self) -> None:
        """Write a new certificate for the server."""
        leaf = self._ca.issue_cert("localhost")
        leaf.private_key_pem.write_to_path(str(self.files.key))
        Path(self.files.certificate).write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))

    def replace(self) -> None:
        """Become another authority, and write a certificate for the server."""
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(self.root))
        self.issue()

    def trust(self, *, with_certificate: bool = False) -> grpc.ChannelCredentials:
        """What a gRPC client needs that trusts this authority as it is now."""
        if not with_certificate:
            return grpc.ssl_channel_credentials(self.root.read_bytes())
        leaf = self._ca.issue_cert("client@example.org")
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return grpc.ssl_channel_credentials(self.root.read_bytes(), leaf.private_key_pem.bytes(), chain)

    def context(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        """As `trust`, for any other client."""
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        if with_certificate:
            self._ca.issue_cert("client@example.org").configure_cert(context)
        return context
