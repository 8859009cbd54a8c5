"""The log: how to reach NATS, and the one JetStream stream that holds every round.

Owns the connection's settings, and the creation and check of the stream. Knows nothing of what publishers and relays
do with it.

LogError
├── LogUnavailable   no answer now; wait and try again
├── LogRefused       credentials or certificates are not accepted; an operator must act
├── LogMismatch      the stream exists with other settings than ours; an operator must decide
└── LogUnsuitable    this server cannot hold the log
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from rounds.cursor import epoch_of
from rounds.subjects import LIVE_TEMPLATE, LOG_SUBJECTS

log = structlog.get_logger()

_ANSWER_S: Final = 5.0
_MIN_SERVER: Final = (2, 11)
"""The first nats-server with batched direct get, which replay and the publisher's check of the tail read with."""
_RECONNECT_S: Final = 0.5
"""Between attempts at one server: a restart takes about that long, and thousands of relays do not hurt at that pace."""
_CLOSE_S: Final = 2.0
_NANO: Final = 1_000_000_000
_NO_STREAM: Final = 10059
_NO_JETSTREAM: Final = (10039, 10076)


class LogError(Exception):
    """Base of the log's errors; ``str()`` is the sentence an operator reads."""


class LogUnavailable(LogError):
    """No answer now. Nothing is known about what was asked for; try again later."""


class LogRefused(LogError):
    """NATS does not accept our credentials or certificates, or they cannot be read."""


class LogUnsuitable(LogError):
    """This server cannot hold the log; the text says what it lacks."""


class Difference(NamedTuple):
    """One setting of the stream that is not as wanted. Durations are in seconds."""

    name: str
    found: object
    wanted: object


class LogMismatch(LogError):
    """The stream exists with other settings. It was not changed."""

    def __init__(self, stream: str, differences: tuple[Difference, ...]) -> None:
        super().__init__(stream, differences)
        self.stream, self.differences = stream, differences

    def __str__(self) -> str:
        each = "; ".join(f"{name} is {found!r}, wanted {wanted!r}" for name, found, wanted in self.differences)
        return (
            f"stream {self.stream!r} exists with other settings and was not changed: {each}. "
            "Change the stream (nats stream edit) or the RELAY_NATS_ settings"
        )


class LogSettings(BaseModel):
    """The section ``nats`` of the settings (``RELAY_NATS_…``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = "nats://127.0.0.1:4222"
    """One server or several of one cluster, separated by commas; ``nats://``, ``tls://``, ``ws://`` or ``wss://``."""
    stream: str = Field(default="ROUNDS", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The stream's name; it becomes a token of the server's API subjects, so letters, digits, ``_`` and ``-``."""
    creds_file: Path | None = None
    """A NATS credentials file (JWT and nkey), as ``nsc`` and hosted NATS hand out."""
    user: str | None = None
    """With `password`; these win over what a URL carries, and keep secrets out of URLs."""
    password: SecretStr | None = None
    """Goes with `user`."""
    token: SecretStr | None = None
    """For servers set up with one shared token."""
    tls_ca_file: Path | None = None
    """Certificates to trust instead of the system's, in PEM."""
    tls_cert_file: Path | None = None
    """Our own certificate, for servers that verify clients. Goes with `tls_key_file`."""
    tls_key_file: Path | None = None
    """The key of `tls_cert_file`."""
    replicas: int = Field(default=1, ge=1, le=5)
    """1 suits a single server; use 3 in a cluster, so that the log outlives any one machine."""
    max_age_s: float = Field(default=30 * 86_400, ge=1)
    """As long as the longest replay that clients are promised: 30 days."""
    duplicate_window_s: float = Field(default=120, ge=0.1)
    """How long the server itself knows ids. The publisher's own check of the tail covers restarts after it, so the
    server's default suffices; every second costs the server memory for that second's ids."""
    max_bytes: int = Field(default=-1, ge=-1)
    """Size at which the oldest rounds go before their time; -1: age alone decides."""
    create: bool = True
    """Make the stream when it is missing. Off, where an operator owns all streams."""
    connect_timeout_s: float = Field(default=5.0, gt=0, le=60)
    """For finding a server that answers, sign-in included. Above a slow TLS handshake, below what a person waits."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, text: str) -> str:
        for url in text.split(","):
            parts = urlsplit(url.strip())
            if parts.scheme not in ("nats", "tls", "ws", "wss") or not parts.hostname:
                raise ValueError("each must look like nats://host:4222 (or tls://, ws://, wss://), separated by commas")
        return text

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.duplicate_window_s > self.max_age_s:
            raise ValueError(
                f"duplicate_window_s {self.duplicate_window_s:g} must not exceed max_age_s {self.max_age_s:g}"
            )
        for one, other in (("user", "password"), ("tls_cert_file", "tls_key_file")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} go together; one of them is missing")
        return self

    @property
    def servers(self) -> list[str]:
        return [url.strip() for url in self.url.split(",")]

    @property
    def shown_url(self) -> str:
        """`url` without user names, passwords and tokens."""
        return ",".join(_without_credentials(url) for url in self.servers)


@dataclass(frozen=True, slots=True)
class LogInfo:
    """The stream as it was found or made."""

    epoch: str  # names this incarnation of the stream; the first half of every cursor
    first: int  # sequence of the oldest round kept; last + 1 when there is none
    last: int  # sequence of the newest round ever stored; 0 in a new stream
    stream: str
    last_at: datetime | None = None  # when the newest round was stored
    max_message_bytes: int = -1  # the stream's own limit for headers and data of a round; -1: none


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
    nc = Client()
    faults: list[Exception] = []

    async def on_error(error: Exception) -> None:
        # nats-py's own handler writes a traceback for each.
        faults[:] = [error]
        if nc.is_connected:
            log.warning("nats_error", connection=name, error=_sentence(error))
        elif nc.is_reconnecting:  # one for every attempt; that the connection is lost has been said
            log.debug("nats_reconnect_failed", connection=name, error=_sentence(error))

    tls = _tls_context(settings)
    if settings.creds_file is not None and not settings.creds_file.is_file():
        raise LogRefused(f"creds_file '{settings.creds_file}' is not a readable file")
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            await nc.connect(
                settings.servers,
                name=name,
                error_cb=on_error,
                disconnected_cb=on_disconnected,
                reconnected_cb=on_reconnected,
                allow_reconnect=False,  # the first attempt has to fail where it can be reported
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]  # only ever given to sleep()
                connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type]  # only ever given to wait_for()
                ping_interval=10,  # a server that is frozen or cut off is noticed within 30 s
                tls=tls,
                user=settings.user,
                password=_revealed(settings.password),
                token=_revealed(settings.token),
                user_credentials=settings.creds_file,
            )
    except ModuleNotFoundError as error:
        await nc.close()
        raise LogRefused("creds_file needs the package nkeys: pip install nkeys") from error
    except (NatsError, OSError, TimeoutError) as error:
        await nc.close()
        raise _connect_error(settings, faults[0] if faults else error) from error
    nc.options["allow_reconnect"] = reconnect
    nc.options["reconnect_time_wait"] = _RECONNECT_S
    try:
        yield nc
    finally:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await nc.close()
        except TimeoutError:  # what is unsent stays so; the server takes nothing any more
            log.warning("nats_close_timed_out", connection=name, after_s=_CLOSE_S)


async def open_log(nc: Client, settings: LogSettings) -> LogInfo:
    """Make the stream, or check that it is as `settings` want it; say where it stands.

    Raises:
        LogUnavailable: No answer in time, or the stream is missing and ``create`` is off.
        LogMismatch: The stream has other settings. It was not changed.
        LogUnsuitable: The server is too old, has no JetStream, or refuses such a stream.
    """
    _check_version(nc, settings)
    answer = await _ask(nc, f"$JS.API.STREAM.INFO.{settings.stream}", b"", settings)
    if answer.get("error", {}).get("err_code") == _NO_STREAM:
        if not settings.create:
            raise LogUnavailable(f"stream {settings.stream!r} does not exist, and RELAY_NATS_CREATE is off")
        wanted = msgspec.json.encode(_wanted(settings))
        answer = await _ask(nc, f"$JS.API.STREAM.CREATE.{settings.stream}", wanted, settings)
    if error := answer.get("error"):
        raise _api_error(error, settings)
    if differences := _differences(answer["config"], _wanted(settings)):
        raise LogMismatch(settings.stream, differences)
    state = answer["state"]
    return LogInfo(
        epoch=epoch_of(int(datetime.fromisoformat(answer["created"]).timestamp() * 1000)),
        first=state["first_seq"] or state["last_seq"] + 1,
        last=state["last_seq"],
        stream=settings.stream,
        last_at=datetime.fromisoformat(state["last_ts"]) if state["last_seq"] else None,
        max_message_bytes=answer["config"].get("max_msg_size", -1),
    )


def _wanted(settings: LogSettings) -> dict[str, Any]:
    """Everything about the stream that the promises rest on; what is not named here is the operator's."""
    return {
        "name": settings.stream,
        "subjects": [LOG_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": round(settings.max_age_s * _NANO),
        "max_bytes": settings.max_bytes,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "duplicate_window": round(settings.duplicate_window_s * _NANO),
        "num_replicas": settings.replicas,
        "allow_direct": True,
        "republish": {"src": LOG_SUBJECTS, "dest": LIVE_TEMPLATE},
    }


_DURATIONS: Final = ("max_age", "duplicate_window")


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> tuple[Difference, ...]:
    differences = []
    for name, value in wanted.items():
        actual = found.get(name)
        if actual == value:
            continue
        if name in _DURATIONS:
            differences.append(Difference(f"{name}_s", (actual or 0) / _NANO, value / _NANO))
        else:
            differences.append(Difference(name, actual, value))
    return tuple(differences)


async def _ask(nc: Client, subject: str, payload: bytes, settings: LogSettings) -> dict[str, Any]:
    try:
        message = await nc.request(subject, payload, timeout=_ANSWER_S)
    except NoRespondersError as error:
        raise _no_jetstream(settings) from error
    except (NatsError, TimeoutError, OSError) as error:
        raise LogUnavailable(f"NATS at {settings.shown_url} did not answer: {_sentence(error)}") from error
    answer: dict[str, Any] = msgspec.json.decode(message.data)
    return answer


def _check_version(nc: Client, settings: LogSettings) -> None:
    version = nc.connected_server_version
    try:
        found = (version.major, version.minor)
    except ValueError:
        return  # a build of one's own; what it lacks shows when it is used
    if found < _MIN_SERVER:
        raise LogUnsuitable(
            f"NATS at {settings.shown_url} is version {found[0]}.{found[1]}; "
            "2.11 or newer is needed (batched direct get)"
        )


def _no_jetstream(settings: LogSettings) -> LogUnsuitable:
    return LogUnsuitable(
        f"NATS at {settings.shown_url} has no JetStream for this account; "
        "start it with -js or enable it for the account"
    )


def _api_error(error: dict[str, Any], settings: LogSettings) -> LogError:
    if error.get("err_code") in _NO_JETSTREAM:
        return _no_jetstream(settings)
    kind = LogUnavailable if error.get("code") == 503 else LogUnsuitable
    return kind(f"stream {settings.stream!r} cannot be opened: {error.get('description', 'no reason given')}")


def _connect_error(settings: LogSettings, error: Exception) -> LogError:
    sentence = _sentence(error)
    if "authorization" in sentence.lower() or isinstance(error, ssl.SSLError):
        return LogRefused(f"NATS at {settings.shown_url} refused the connection: {sentence}")
    return LogUnavailable(f"NATS at {settings.shown_url} cannot be reached: {sentence}")


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


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path="", query="", fragment="").geturl()


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _sentence(error: Exception) -> str:
    """Say in words what nats-py and the system raised; some of it has no text."""
    return str(error).removeprefix("nats: ").strip() or type(error).__name__
