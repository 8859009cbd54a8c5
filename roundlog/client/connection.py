"""Connect to NATS: sign-in, TLS, requests, and one sentence instead of a traceback when something fails.

Knows nothing of streams. Every connection of ours to NATS is made here.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog
from nats.aio.msg import Msg
from pydantic import SecretStr

from roundlog.client.checked_client import CheckedClient as Client
from roundlog.client.denials import Denials
from roundlog.client.faults import NATS_ERRORS, connect_error, sentence, translated
from roundlog.client.library_errors import means_lost
from roundlog.client.nats_internals import abort
from roundlog.log_errors import LogDenied, LogRefused, LogUnavailable
from roundlog.log_settings import LogSettings

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

log = structlog.get_logger()

_ANSWER_S: Final = 5.0
_RECONNECT_S: Final = 0.5
"""Between attempts at one server. A restart takes about that long, and thousands of relays at that pace are no load."""
_CLOSE_S: Final = 2.0
_CLOSE_FAILED_S: Final = 0.2
_GREETED_TRIES: Final = 3

Callback = Callable[[], Awaitable[None]]
OnMessage = Callable[[Msg], Awaitable[None]]


class Connection:
    """A connection to NATS. Its methods raise `LogUnavailable` where nats-py's raise errors of many kinds.

    Get it from `connect`.
    """

    def __init__(self, client: Client, settings: LogSettings, denials: Denials) -> None:
        shown_url = settings.shown_url
        self.client = client
        """nats-py's own client. Outside of this package, for tests only."""
        self.shown_url = shown_url
        """Where the server is, without credentials."""
        self._no_answer = f"NATS at {shown_url} did not answer"
        self._lost = f"the connection to NATS at {shown_url} was lost"
        self._answers_to = settings.answers_to
        self._denials = denials

    @property
    def is_connected(self) -> bool:
        """False while nats-py looks for a server again, and once the connection is closed."""
        return self.client.is_connected

    @property
    def max_payload(self) -> int:
        """The server's limit for headers and data of a message, in bytes."""
        return self.client.max_payload

    @property
    def server_version(self) -> tuple[int, int] | None:
        """Major and minor version of the server; None: it does not say so in numbers."""
        version = self.client.connected_server_version
        try:
            return version.major, version.minor
        except ValueError:
            return None

    async def request(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> bytes:
        """Send a request and return the data of its answer.

        Raises:
            NoResponders: Nothing listens on the subject.
            LogDenied: No answer within 5 s, because our user lacks a permission.
            LogUnavailable: No answer within 5 s, or the connection is lost. The request may have been carried out.
        """
        with self.asking(subject, self._no_answer):
            return (await self.client.request(subject, data, _ANSWER_S, headers=_mutable(headers))).data

    @contextmanager
    def asking(self, subject: str, context: str) -> Iterator[None]:
        """Raise ``LogUnavailable(<context>: <reason>)`` when a request that the block sends to `subject` has no answer.

        Raises:
            LogDenied: Because our user may not send it, or may not get its answer.
        """
        asked_at = time.monotonic()
        try:
            with translated(context):
                yield
        except LogUnavailable as error:
            denied = self._denials.of_publish(subject, since=asked_at) or self.denied(self._answers_to)
            if denied is not None:
                raise denied from error
            raise

    def denied(self, subject: str) -> LogDenied | None:
        """Return why the server has refused a subscription to what begins with `subject`; None: it has not.

        It is known once the server has answered any later request.
        """
        return self._denials.of_subscription(subject)

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message without waiting for an answer.

        Raises:
            LogUnavailable: The connection is lost.
        """
        with translated(self._lost):
            await self.client.publish(subject, data, reply, _mutable(headers))

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses, for answers."""
        return self.client.new_inbox()

    async def subscribe(self, subject: str, on_message: OnMessage) -> "Subscription":
        """Subscribe to a subject. The server knows of it once it has answered any later request.

        Raises:
            LogUnavailable: The connection is lost.
        """
        with translated(self._lost):
            return await self.client.subscribe(subject, cb=on_message)

    async def unsubscribe(self, subscription: "Subscription") -> None:
        """End a subscription.

        Raises:
            LogUnavailable: The connection is lost, and the subscription with it.
        """
        with translated(self._lost):
            await subscription.unsubscribe()


@asynccontextmanager
async def connect(
    settings: LogSettings,
    *,
    name: str,
    on_disconnected: Callback | None = None,
    on_reconnected: Callback | None = None,
    reconnect: bool = True,
) -> AsyncIterator[Connection]:
    """Hold a connection to NATS for as long as the block lasts.

    Args:
        settings: The server and the credentials.
        name: Shown for this connection in the server's monitoring.
        on_disconnected: A coroutine function, awaited when the connection is lost, and when it is closed.
        on_reconnected: The same, awaited each time the connection has been made again.
        reconnect: Look for a server again, without limit, when the connection is lost. Off: a lost connection stays
            closed.

    Raises:
        LogUnavailable: No server answered within ``connect_timeout_s``.
        LogRefused: Credentials or certificates are wrong.
    """
    tls = _tls_context(settings)
    if settings.creds_file is not None:
        _check_creds(settings.creds_file)
    tries = _GREETED_TRIES
    while True:
        nc, denials = Client(), Denials(settings.shown_url)
        faults = _Faults(name, denials, on_disconnected)
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await nc.connect(
                    settings.servers,
                    name=name,
                    error_cb=faults.on_error,
                    disconnected_cb=faults.on_disconnected,
                    reconnected_cb=on_reconnected,
                    allow_reconnect=False,  # the first attempt must fail here, where it can be reported
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # only given to sleep()
                    connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type]  # only given to wait_for()
                    ping_interval=10,  # detects a frozen or unreachable server within 30 s
                    tls=tls,
                    user=settings.user,
                    password=_revealed(settings.password),
                    token=_revealed(settings.token),
                    user_credentials=settings.creds_file,
                    inbox_prefix=settings.answers_to,
                )
            break
        except ModuleNotFoundError as error:
            raise LogRefused("creds_file needs the package nkeys: pip install nkeys") from error
        except BaseException as error:
            if not (isinstance(error, NATS_ERRORS) or means_lost(error)):
                await _close(nc, name, within_s=_CLOSE_FAILED_S)  # nats-py does not close what it has opened
                raise
            greeted = nc.client_id is not None
            # On a timeout the newest fault is the reason. It is read before closing, which may add others.
            cause = faults.newest or error if isinstance(error, TimeoutError) else error
            await _close(nc, name, within_s=_CLOSE_FAILED_S)
            tries -= 1
            if greeted and isinstance(error, ConnectionError) and tries:
                continue  # the server closed the connection and its reason was lost with it: try again to get it
            raise connect_error(settings.shown_url, cause) from error
    faults.connected = True
    nc.options["allow_reconnect"] = reconnect
    nc.options["reconnect_time_wait"] = _RECONNECT_S
    try:
        yield Connection(nc, settings, denials)
    finally:
        await _close(nc, name)


class _Faults:
    """Logs nats-py's errors in one line each. The default handler of nats-py writes a traceback."""

    def __init__(self, name: str, denials: Denials, on_disconnected: Callback | None) -> None:
        self._name = name
        self._denials = denials
        self._then = on_disconnected
        self.newest: Exception | None = None
        self.connected = False

    async def on_error(self, error: Exception) -> None:
        self.newest = error
        if not self.connected:
            return  # `connect` raises it
        if (refusal := self._denials.note(str(error))) is not None:
            denied, is_new = refusal
            if is_new:
                log.error("nats_denied", connection=self._name, error=str(denied))
            return
        # While reconnecting, there is one for every attempt.
        write = log.debug if isinstance(error, OSError) else log.warning
        write("nats_error", connection=self._name, error=sentence(error))

    async def on_disconnected(self) -> None:
        self._denials.clear()
        if self._then is not None:
            await self._then()


async def _close(nc: Client, name: str, *, within_s: float = _CLOSE_S) -> None:
    try:
        async with asyncio.timeout(within_s):
            await nc.close()
    except TimeoutError:  # the server reads nothing, or the TLS handshake was interrupted
        log.debug("nats_close_timed_out", connection=name, after_s=within_s)
    except BaseException as error:
        if not (isinstance(error, NATS_ERRORS) or means_lost(error)):
            raise
        log.debug("nats_close_failed", connection=name, error=sentence(error))  # it was lost already
    finally:
        abort(nc)  # a close that timed out or was cancelled leaves the socket open


def _check_creds(path: Path) -> None:
    # nats-py searches for these lines in an endless loop when they are missing.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LogRefused(f"creds_file '{path}' cannot be read: {error.strerror}") from error
    for part in (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED"):
        if part not in content:
            raise LogRefused(f"creds_file '{path}' is not a NATS credentials file: it lacks {part.decode()!r}")


def _tls_context(settings: LogSettings) -> ssl.SSLContext | None:
    secure = any(urlsplit(url).scheme in ("tls", "wss") for url in settings.servers)
    if not secure and settings.tls_ca_file is None and settings.tls_cert_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, _no_password)
    except OSError as error:
        files = [str(path) for path in (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file) if path]
        raise LogRefused(f"TLS files {', '.join(files)} cannot be used: {error}") from error
    return context


def _no_password() -> str:  # without this, OpenSSL asks for it on the terminal
    raise OSError("the private key is encrypted; give one without a password")


def _mutable(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if headers is None else dict(headers)


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
