"""TLS for the admin API, from files that may be replaced while the process runs."""

import ssl
from pathlib import Path
from typing import Final

import structlog

from relay.config.admin_sections import AdminSettings
from relay.errors import StartError

log = structlog.get_logger()

_OLDEST: Final = ssl.TLSVersion.TLSv1_2


class AdminTls:
    """Gives each handshake the certificates that the files have now."""

    def __init__(self, settings: AdminSettings) -> None:
        """Load the files; raise `StartError` when one cannot be read or is not valid."""
        self._settings = settings
        try:
            self._seen = self._modified()
            self._current = self._load()
        except OSError as error:
            raise StartError(f"TLS for the admin API: {error}") from error
        self.context = self._load()
        """What a server listens with. Its handshakes continue with the newest files."""
        self.context.sni_callback = self._use_newest  # called at each handshake, with a name or without

    def _use_newest(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        handshake.context = self._newest()

    def _newest(self) -> ssl.SSLContext:
        try:
            modified = self._modified()
            if modified != self._seen:
                self._seen = modified
                self._current = self._load()
                log.info("tls_reloaded")
        except OSError as error:
            log.error("tls_reload_failed", error=str(error))
        return self._current

    def _load(self) -> ssl.SSLContext:
        """Read all files; raise OSError, which names them, when one cannot be read or is not valid."""
        settings = self._settings
        if settings.tls_cert_file is None or settings.tls_key_file is None:
            raise AssertionError("checked by the settings")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = _OLDEST
        try:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        except ssl.SSLError as error:
            files = f"{settings.tls_cert_file} and {settings.tls_key_file}"
            raise OSError(f"{files} are no certificate and its key: {error.reason or error}") from error
        if settings.tls_client_ca_file is not None:
            try:
                context.load_verify_locations(settings.tls_client_ca_file)
            except ssl.SSLError as error:
                raise OSError(f"{settings.tls_client_ca_file} has no certificate: {error.reason or error}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _modified(self) -> tuple[int, ...]:
        settings = self._settings
        files: tuple[Path | None, ...] = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        return tuple(path.stat().st_mtime_ns for path in files if path is not None)


def tls_of(settings: AdminSettings) -> AdminTls | None:
    """Return TLS as the settings have it; None without a certificate."""
    return None if settings.tls_cert_file is None else AdminTls(settings)
