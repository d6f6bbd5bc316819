"""TLS for listeners: TLS 1.2 and newer, optional client certificates, and certificates that are renewed on disk."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.frontends.calls import Peer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files."""

    certificate: Path
    """The server's certificate, and after it those that lead to its root."""
    key: Path
    root: Path | None = None
    """Certificates that clients' certificates must lead to; None asks clients for none."""


class TlsConfig:
    """Contexts for new connections, made anew whenever a file has changed. Broken files leave the old ones in force."""

    def __init__(self, files: TlsFiles, protocols: tuple[str, ...]) -> None:
        """Raises `OSError` (of which `ssl.SSLError` is one) where the files cannot be used."""
        self._files = files
        self._protocols = protocols
        self._stamp = self._read_stamp()
        self._current = self._load()
        self.context = self._load()
        """For the listener. Each handshake is then moved to what is current."""
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Called by OpenSSL at the start of every handshake, with or without a server name."""
        self._refresh()
        connection.context = self._current

    def _refresh(self) -> None:
        try:
            stamp = self._read_stamp()
            if stamp != self._stamp:
                self._current = self._load()
                self._stamp = stamp
                log.info("TLS certificates were renewed from %s", self._files.certificate)
        except OSError as error:
            log.warning("TLS certificates have changed but cannot be used, keeping the old ones: %s", error)

    def _load(self) -> ssl.SSLContext:
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(self._protocols))
        try:
            context.load_cert_chain(files.certificate, files.key)
            if files.root:
                context.load_verify_locations(files.root)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:
            names = ", ".join(str(path) for path in (files.certificate, files.key, files.root) if path)
            raise OSError(f"TLS files {names} cannot be used: {error}") from error
        return context

    def _read_stamp(self) -> tuple[tuple[int, int], ...]:
        paths = (self._files.certificate, self._files.key, self._files.root)
        stats = [os.stat(path) for path in paths if path]
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)


ALTERNATIVES = ("DNS", "URI", "email")
"""Kinds of alternative names in a certificate that tell who somebody is."""


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Who is at the other end of an asyncio transport."""
    name: Any = transport.get_extra_info("peername")
    address = "unix:"
    if isinstance(name, tuple) and len(name) >= 2:
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        address = f"{host}:{name[1]}"
    return Peer(address, _names(transport.get_extra_info("peercert") or {}))


def _names(certificate: Any) -> tuple[str, ...]:
    """Of a certificate that was verified, as `SSLSocket.getpeercert` shows it; {} for none."""
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    return (
        *(f"CN:{value}" for kind, value in subject if kind == "commonName"),
        *(f"{kind}:{value}" for kind, value in certificate.get("subjectAltName", ()) if kind in ALTERNATIVES),
    )
