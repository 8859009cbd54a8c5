"""Connect to NATS: sign in, TLS, and one sentence instead of tracebacks when it does not work.

Knows nothing of streams. Everything of ours that speaks to NATS gets its connection here.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import SecretStr

from roundlog.errors import LogError, LogRefused, LogUnavailable
from roundlog.settings import LogSettings

log = structlog.get_logger()

_RECONNECT_S: Final = 0.5
"""Between attempts at one server: a restart takes about that long, and thousands of relays do not hurt at that pace."""
_CLOSE_S: Final = 2.0
_CLOSE_FAILED_S: Final = 0.2
_GREETED_TRIES: Final = 3

Callback = Callable[[], Awaitable[None]]


@asynccontextmanager
async def connect(
    settings: LogSettings,
    *,
    name: str,
    on_disconnected: Callback | None = None,
    on_reconnected: Callback | None = None,
    reconnect: bool = True,
) -> AsyncIterator[Client]:
    """Hold a connection to NATS for as long as the block lasts.

    Args:
        settings: Where NATS is and who we are.
        name: Shown for this connection in the server's monitoring.
        on_disconnected: A coroutine function, awaited when the connection is lost, and when it is closed.
        on_reconnected: The same, awaited each time it is back.
        reconnect: Look for a server again, for ever, when the connection is lost. Off: a lost connection stays closed.

    Raises:
        LogUnavailable: No server answered within ``connect_timeout_s``.
        LogRefused: Credentials or certificates are wrong.
    """
    tls = _tls_context(settings)
    if settings.creds_file is not None:
        _check_creds(settings.creds_file)
    tries = _GREETED_TRIES
    while True:
        nc, faults = Client(), _Faults(name)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await nc.connect(
                    settings.servers,
                    name=name,
                    error_cb=faults.on_error,
                    disconnected_cb=on_disconnected,
                    reconnected_cb=on_reconnected,
                    allow_reconnect=False,  # the first attempt has to fail where it can be reported
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # only ever given to sleep()
                    connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type]  # only given to wait_for()
                    ping_interval=10,  # a server that is frozen or cut off is noticed within 30 s
                    tls=tls,
                    user=settings.user,
                    password=_revealed(settings.password),
                    token=_revealed(settings.token),
                    user_credentials=settings.creds_file,
                )
            break
        except asyncio.CancelledError:
            await _close(nc, name, within_s=_CLOSE_FAILED_S)  # nats-py leaves open what it had begun
            raise
        except ModuleNotFoundError as error:
            raise LogRefused("creds_file needs the package nkeys: pip install nkeys") from error
        except (NatsError, OSError, TimeoutError) as error:
            greeted = nc.client_id is not None
            # Out of time: the newest fault says why. Noted now, since closing has faults of its own.
            cause = faults.newest or error if isinstance(error, TimeoutError) else error
            await _close(nc, name, within_s=_CLOSE_FAILED_S)
            tries -= 1
            if greeted and isinstance(error, ConnectionError) and tries:
                continue  # it hung up on us, and the reason it gave was lost with the connection: hear it again
            raise _connect_error(settings, cause) from error
    faults.connected = True
    nc.options["allow_reconnect"] = reconnect
    nc.options["reconnect_time_wait"] = _RECONNECT_S
    try:
        yield nc
    finally:
        await _close(nc, name)


class _Faults:
    """Takes nats-py's errors, for each of which its own handler would write a traceback."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.newest: Exception | None = None
        self.connected = False

    async def on_error(self, error: Exception) -> None:
        self.newest = error
        if not self.connected:
            return  # said by whoever asked for the connection
        # While reconnecting, one comes for every attempt.
        tell = log.debug if isinstance(error, OSError) else log.warning
        tell("nats_error", connection=self._name, error=sentence(error))


async def _close(nc: Client, name: str, *, within_s: float = _CLOSE_S) -> None:
    try:
        async with asyncio.timeout(within_s):
            await nc.close()
    except TimeoutError:  # the server takes nothing any more, or the TLS handshake broke off in the middle
        log.debug("nats_close_timed_out", connection=name, after_s=within_s)


def _connect_error(settings: LogSettings, error: Exception) -> LogError:
    reason = sentence(error)
    if "authorization" in reason.lower() or isinstance(error, ssl.SSLError):
        return LogRefused(f"NATS at {settings.shown_url} refused the connection: {reason}")
    return LogUnavailable(f"NATS at {settings.shown_url} cannot be reached: {reason}")


def _check_creds(path: Path) -> None:
    # nats-py looks for these lines in an endless loop when they are not there.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LogRefused(f"creds_file '{path}' cannot be read: {error.strerror}") from error
    for part in (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED"):
        if part not in content:
            raise LogRefused(f"creds_file '{path}' is no NATS credentials file: it lacks {part.decode()!r}")


def _tls_context(settings: LogSettings) -> ssl.SSLContext | None:
    secure = any(urlsplit(url).scheme in ("tls", "wss") for url in settings.servers)
    if not secure and settings.tls_ca_file is None and settings.tls_cert_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except OSError as error:
        files = [str(path) for path in (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file) if path]
        raise LogRefused(f"TLS files {', '.join(files)} cannot be used: {error}") from error
    return context


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def sentence(error: Exception) -> str:
    """Say in words what nats-py and the system raised; some of it has no text."""
    return str(error).removeprefix("nats: ").strip() or type(error).__name__
