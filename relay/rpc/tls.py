"""TLS for the gRPC port, from files that may be replaced while the relay runs."""

import ssl
from pathlib import Path

import grpc
import structlog

from relay.config.sections import GrpcSettings
from relay.errors import StartError

log = structlog.get_logger()


class _Files:
    """The certificate files; read again at the first handshake after one of them has changed."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._settings = settings
        self._seen: tuple[int, ...] = ()

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read all files; raise OSError when one cannot be read or is not valid."""
        settings = self._settings
        if settings.tls_cert_file is None or settings.tls_key_file is None:
            raise AssertionError("checked by the settings")
        self._seen = self._modified()
        _check(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        pair = (settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())
        roots = None if settings.tls_client_ca_file is None else settings.tls_client_ca_file.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the files if they have changed, else None; gRPC calls this in its own thread before each handshake."""
        try:
            if self._modified() == self._seen:
                return None
            changed = self.load()
        except OSError as error:
            log.error("tls_reload_failed", error=str(error))
            return None
        log.info("tls_reloaded")
        return changed

    def _modified(self) -> tuple[int, ...]:
        settings = self._settings
        files: tuple[Path | None, ...] = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        return tuple(path.stat().st_mtime_ns for path in files if path is not None)


def _check(certificate: Path, key: Path, client_ca: Path | None) -> None:
    """Raise OSError, which names the files, when they are not valid: gRPC would only write to stderr."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise OSError(f"{certificate} and {key} are no certificate and its key: {error.reason or error}") from error
    try:
        if client_ca is not None:
            context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise OSError(f"{client_ca} holds no certificate: {error.reason or error}") from error


def credentials(settings: GrpcSettings) -> grpc.ServerCredentials:
    """Make the server's credentials; clients must show a certificate when a client CA is configured.

    Raises:
        StartError: A file cannot be read or is not valid.
    """
    files = _Files(settings)
    try:
        initial = files.load()
    except OSError as error:
        raise StartError(f"TLS for gRPC: {error}") from error
    return grpc.dynamic_ssl_server_credentials(
        initial,
        files.fetch,  # type: ignore[arg-type]  # None means unchanged, says grpc's documentation
        require_client_authentication=settings.tls_client_ca_file is not None,
    )
