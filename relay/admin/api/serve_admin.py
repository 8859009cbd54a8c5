"""Serve the admin API: on its port, with TLS if so set, in a process of its own or in a relay's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from auth.stores.key_store import EditableKeyStore
from relay.admin.api.admin_routes import AdminRoutes
from relay.admin.api.connected import Connected
from relay.admission.strangers import Share
from relay.config.settings import Settings
from relay.errors import PortUnavailable, StartError
from relay.http.application import build_app
from relay.http.connections.guarded import ConnectionLimits
from relay.http.monitoring.exposition import listening_socket
from relay.http.monitoring.probes import Probes
from relay.http.protocol import protocol_factory
from relay.signals import stop_requested
from relay.tls_files import TlsFiles
from relay.turns import Turns

log = structlog.get_logger()

_CONNECTIONS: Final = 64
"""The most connections; for one more, the oldest idle one is closed."""
_REQUEST_S: Final = 10.0
_KEEPALIVE_S: Final = 75.0
_CLOSING_S: Final = 2.0
"""For the answers of changes that are under way."""
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def serve_admin(settings: Settings, store: EditableKeyStore) -> None:
    """Serve the admin API until SIGTERM or SIGINT.

    Raises:
        StartError: The port or a certificate is not as required, or no port is set.
    """
    if settings.admin.port is None:
        raise StartError("RELAY_ADMIN_PORT is not set, and --port is not given: the admin API is closed by default")
    async with serving_admin(settings, store):
        await stop_requested()
        log.info("stop_requested")


@asynccontextmanager
async def serving_admin(settings: Settings, store: EditableKeyStore) -> AsyncIterator[str]:
    """Serve the admin API while the block runs; yield its URL. ``settings.admin.port`` is set.

    Raises:
        StartError: The port or a certificate is not as required.
    """
    given = settings.admin
    port = 0 if given.port is None else given.port
    tls = None if given.tls_cert_file is None else TlsFiles(given, of="the admin API")
    async with Connected(settings, store) as connected:
        routes = [AdminRoutes(connected).table(), Probes(lambda: None).table()]
        app = build_app(routes, home=None, for_pages=False, paths="/openapi.json lists all paths")
        app.on_response_prepare.append(_Headers(secure=tls is not None))
        # Without handler_cancellation: a change is carried out, and answered, also when its client has left.
        runner = web.AppRunner(app, shutdown_timeout=_CLOSING_S)
        await runner.setup()
        try:
            try:
                listener = listening_socket(given.host, port)
            except OSError as error:
                raise PortUnavailable(f"{given.host}:{port}", error, setting="RELAY_ADMIN_PORT") from error
            strangers = Share(_CONNECTIONS)
            factory = protocol_factory(
                runner, ConnectionLimits(strangers, Share(0), _REQUEST_S), Turns(), keepalive_s=_KEEPALIVE_S
            )
            server = await asyncio.get_running_loop().create_server(
                factory, sock=listener, ssl=None if tls is None else tls.listening_context()
            )
            host, number = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            url = f"{'http' if tls is None else 'https'}://{shown}:{number}"
            mtls = given.tls_client_ca_file is not None
            log.info("admin_listening", url=url, mtls=mtls)
            if tls is None and not host.startswith("127.") and host != "::1":
                log.warning("admin_without_tls", url=url)
            try:
                yield url
            finally:
                server.close()
                while strangers.shed_one():  # those whose last answer is still read, too
                    pass
        finally:
            await runner.cleanup()


class _Headers:
    """Adds headers to every answer."""

    def __init__(self, *, secure: bool) -> None:
        self._headers = _HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if secure else {})

    async def __call__(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)
        response.headers.setdefault("Cache-Control", "no-store")
