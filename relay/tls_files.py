"""TLS of a port, from files that may be replaced while the process runs."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import structlog

from relay.errors import StartError

log = structlog.get_logger()

_OLDEST: Final = ssl.TLSVersion.TLSv1_2
_HTTP2_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: HTTP/2 prohibits all others (RFC 9113, appendix A). All those of TLS 1.3 are allowed."""


class NamesTlsFiles(Protocol):
    """The settings of a port with TLS: files in PEM; those of the certificate and its key are set."""

    @property
    def tls_cert_file(self) -> Path | None: ...
    @property
    def tls_key_file(self) -> Path | None: ...
    @property
    def tls_client_ca_file(self) -> Path | None: ...


class TlsFiles:
    """The certificates as the files have them; read again at the first handshake after one of them has changed."""

    def __init__(self, settings: NamesTlsFiles, *, of: str, http2: bool = False) -> None:
        """Load the files.

        Args:
            settings: Which files.
            of: What the port is for, for error messages.
            http2: Whether the port speaks HTTP/2, and nothing else.

        Raises:
            StartError: A file cannot be read or is not valid.
        """
        self._settings = settings
        self._http2 = http2
        try:
            self._seen = self._versions()
            self._context = self._load()
        except OSError as error:
            raise StartError(f"TLS for {of}: {error}") from error

    def context(self) -> ssl.SSLContext:
        """Return what the next handshake uses. Files that are not valid are logged, and those before them stay."""
        try:
            versions = self._versions()
            if versions != self._seen:
                self._seen = versions
                self._context = self._load()
                log.info("tls_reloaded")
        except OSError as error:
            log.error("tls_reload_failed", error=str(error))
        return self._context

    def listening_context(self) -> ssl.SSLContext:
        """Return what a server of asyncio listens with: each of its handshakes continues with `context`."""

        def use_newest(handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            handshake.context = self.context()

        listening = self._load()
        listening.sni_callback = use_newest  # called at each handshake, with a name or without
        return listening

    def _load(self) -> ssl.SSLContext:
        """Read all files; raise OSError, which names them, when one cannot be read or is not valid."""
        settings = self._settings
        certificate, key, client_ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
        if certificate is None or key is None:
            raise AssertionError("checked by the settings")

        def password() -> str:  # else OpenSSL asks for it on the terminal
            raise OSError(f"{key} is encrypted; give a private key without a password")

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = _OLDEST
        if self._http2:
            context.set_ciphers(_HTTP2_CIPHERS)
            context.set_alpn_protocols(["h2"])
        for path in (certificate, key, client_ca):
            if path is not None:
                with _named(path):
                    path.read_bytes()  # the error of OpenSSL has no name of a file
        try:
            context.load_cert_chain(certificate, key, password)
        except ssl.SSLError as error:
            raise OSError(f"{certificate} and {key} are no certificate in PEM and its key{_why(error)}") from error
        if client_ca is not None:
            try:
                context.load_verify_locations(client_ca)
            except ssl.SSLError as error:
                raise OSError(f"{client_ca} holds no certificate in PEM{_why(error)}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _versions(self) -> list[tuple[int, int, int]]:
        """Return what differs after a change of any file."""
        settings = self._settings
        files: tuple[Path | None, ...] = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        found = [_stat(path) for path in files if path is not None]
        return [(each.st_mtime_ns, each.st_size, each.st_ino) for each in found]


def _stat(path: Path) -> os.stat_result:
    with _named(path):
        return path.stat()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raise an OSError of the block again as a sentence about a file."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error


def _why(error: ssl.SSLError) -> str:
    """Return the reason of OpenSSL, where it names one."""
    return f": {error.reason.replace('_', ' ').lower()}" if error.reason else ""
