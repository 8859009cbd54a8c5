"""The sections of the settings that only the relay uses: fields, units, defaults with their reasons, and bounds.

Knows nothing of the sources of values, which are in `relay.config.settings`. The section ``nats`` is in `roundlog`; the
sections ``backend``, ``publish`` and ``ingest`` are in `backends`.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from relay.config.trusted_proxies import TrustedProxies

Access = Literal["public", "key", "off"]
"""Who may read a path on the HTTP port: everybody, clients with a key, or nobody."""


class Section(BaseModel):
    """A section: immutable, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def check_tls_files(cert_file: Path | None, key_file: Path | None, client_ca_file: Path | None) -> None:
    """Raise `ValueError` for files of TLS of which one needs another that is not set."""
    if (cert_file is None) != (key_file is None):
        raise ValueError("tls_cert_file and tls_key_file must be set together; one of them is missing")
    if client_ca_file is not None and cert_file is None:
        raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")


class HttpSettings(Section):
    host: str = "0.0.0.0"  # noqa: S104 - in a container the platform controls access
    """``::`` listens on all addresses of IPv6 and IPv4, for HTTP and for gRPC; ``0.0.0.0`` on those of IPv4."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 lets the system choose. When this is not set, the platform's ``PORT`` is used."""
    monitor_port: int | None = Field(default=None, ge=0, le=65535)
    """Another port for probes and metrics alone; it stays open while a relay drains. Not set: there is none."""
    h2c: bool = False
    """Serve HTTP/2 without TLS on this port too, told apart by its first bytes: gRPC and all else but WebSockets. Off:
    who has closed the gRPC port, or protects it by client certificates, does not open it by an update."""
    request_s: float = Field(default=10.0, gt=0, le=60)
    """How long a client may take to send the head of a request, and again for its body. Clients send both at once."""
    trusted_proxies: str = Field(default="", max_length=4096)
    """Addresses and networks of proxies, separated by commas, such as ``10.0.0.0/8,fd00::/8``. What they send in
    ``X-Forwarded-For`` or ``Forwarded`` is the client's address, for HTTP and for gRPC; of others it is ignored."""
    keepalive_s: float = Field(default=75.0, ge=1, le=7200)
    """Idle time between two requests on a connection. Longer than the load balancer's, so that the balancer closes
    first and no request meets a closed connection: nginx and ALB have 60 s, Google's 600 s, Envoy an hour."""
    metrics: Access = "public"
    """Who may read ``/metrics`` on this port; on `monitor_port` it stays public. key: the keys of `metrics_keys`."""
    metrics_keys: str = ""
    """Ids of keys, separated by commas, for ``metrics=key``. Not all keys: metrics are of all clients together."""
    docs: Access = "public"
    """Who may read ``/docs`` and ``/openapi.json``. key: any key."""
    compress_websocket: bool = True
    """Compress rounds for WebSocket clients that offer it: 28 bytes each instead of 206, for 5 µs of each channel."""
    compress_sse: bool = True
    """The same for event streams whose client accepts gzip. Clients decompress at once what is flushed."""

    @property
    def metrics_key_ids(self) -> frozenset[str]:
        """`metrics_keys` as a set."""
        return frozenset(name for part in self.metrics_keys.split(",") if (name := part.strip()))

    @model_validator(mode="after")
    def _check_metrics_keys(self) -> Self:
        if (self.metrics == "key") != bool(self.metrics_key_ids):
            raise ValueError("metrics=key and metrics_keys, the ids of the keys that may scrape, must be set together")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, text: str) -> str:
        TrustedProxies.parse(text)
        return text

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.monitor_port and self.monitor_port == self.port:
            raise ValueError(f"monitor_port and port are both {self.port}; they must differ")
        return self


class GrpcSettings(Section):
    host: str = "0.0.0.0"  # noqa: S104 - as for HTTP
    port: int | None = Field(default=50051, ge=0, le=65535)
    """0 lets the system choose; ``off``: there is none, for relays that serve gRPC on the HTTP port, or not at all."""
    tls_cert_file: Path | None = None
    """A certificate chain in PEM; enables TLS. A replaced file is used from the next handshake on."""
    tls_key_file: Path | None = None
    """The private key of `tls_cert_file`."""
    tls_client_ca_file: Path | None = None
    """Clients must present a certificate of this authority (mTLS)."""
    keepalive_s: float = Field(default=50.0, ge=10, le=3600)
    """Time between HTTP/2 pings. Under the usual proxy idle timeout of 60 s."""
    keepalive_timeout_s: float = Field(default=20.0, ge=1, le=600)
    """A connection that does not answer a ping in this time is closed."""
    request_bytes: int = Field(default=64 << 10, ge=1 << 10)
    """Maximum size of a request. No valid request needs more."""
    request_s: float = Field(default=10.0, gt=0, le=60)
    """How long a connection may take for its handshake, and a call for its request message."""
    idle_s: float = Field(default=120.0, ge=1, le=86_400)
    """A connection without calls is closed after this time. Clients reconnect with their next call."""
    streams_per_connection: int = Field(default=1000, ge=1)
    """Maximum number of concurrent calls on one connection."""
    answers: int = Field(default=256, ge=1)
    """Maximum number of concurrent unary calls in this process, over gRPC and Connect; others get a retry delay."""
    reflection: Access = "public"
    """Who may use server reflection, which shows the methods and messages of the service; they are no secret."""

    @field_validator("port", mode="before")
    @classmethod
    def _check_off(cls, port: object) -> object:
        return None if port == "off" else port

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_tls_files(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)
        return self


class AuthSettings(Section):
    keys: SecretStr = SecretStr("")
    """Keys in the one-line form, for platforms without files; see docs/auth.md."""
    keys_file: Path | None = None
    """Keys as TOML, in addition to `keys`. Read again when it changes, and on SIGHUP."""
    store: Literal["auto", "env", "file", "nats", "postgres"] = "auto"
    """Where more keys are, in addition to `keys` and `keys_file`: nats: a bucket; postgres: a table; env and file: no
    others. auto: nats when neither `keys` nor `keys_file` is set, since a relay without keys serves nobody."""
    bucket: str = Field(default="keys", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The bucket of the store nats, on the server of the section ``nats``: letters, digits, ``_`` and ``-``."""
    dsn: SecretStr | None = None
    """The URL of the database of the store postgres, such as ``postgresql://relay@db.example/app``."""
    stale_s: float = Field(default=3600.0, ge=5, le=30 * 86_400)
    """How long keys of a store that is away may open links and send requests. An hour: longer than most outages and
    any failover, and the longest that a key works which was taken away meanwhile. Open links stay open."""
    test_keys: Literal["allow", "refuse"] = "allow"
    """Whether keys for tests (``sk_test_``, ``pk_test_``) are accepted. Refuse them where real clients connect."""
    private_in_browsers: Literal["warn", "refuse"] = "warn"
    """What happens when a browser sends a private key, which everybody who opens the page can then read."""
    token_secrets: SecretStr = SecretStr("")
    """``id:secret,id:secret``: the first signs stream tokens, all verify. Must be the same on every relay."""
    token_secrets_file: Path | None = None
    """More of them, separated by commas or line ends. Read again when it changes: a rotation needs no restart."""
    token_key_files: str = ""
    """``id:path,id:path``: keys in PEM that sign or verify by ES256, EdDSA or RS256. Read again when they change."""
    token_signing_id: str = ""
    """The id of the secret or key that signs. Not set: the first of the secrets, of their file, of the key files."""

    @property
    def chosen_store(self) -> Literal["env", "file", "nats", "postgres"]:
        """`store`, or what ``auto`` means with the other settings."""
        if self.store != "auto":
            return self.store
        return "env" if self.keys.get_secret_value().strip() or self.keys_file is not None else "nats"

    @model_validator(mode="after")
    def _check_store(self) -> Self:
        if self.store == "postgres" and self.dsn is None:
            raise ValueError("store=postgres needs dsn (RELAY_AUTH_DSN), the URL of the database")
        if self.dsn is not None and not self.dsn.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("dsn (RELAY_AUTH_DSN) is not a URL of the form postgresql://user@host/database")
        if self.store == "file" and self.keys_file is None:
            raise ValueError("store=file needs keys_file (RELAY_AUTH_KEYS_FILE)")
        return self


class LimitSettings(Section):
    """Limits of keys and addresses, where a key has none of its own; 0: no limit. See docs/limits.md."""

    private_requests_per_min: int = Field(default=1000, ge=0, le=10_000_000)
    """REST, token and unary calls of one private key."""
    public_requests_per_min: int = Field(default=100, ge=0, le=10_000_000)
    """The same of one public key from one client address: all viewers of a page share its key."""
    public_key_requests_per_min: int = Field(default=100_000, ge=0, le=10_000_000)
    """The same of one public key from all addresses: a thousand viewers who use all they may."""
    private_links: int = Field(default=1000, ge=0, le=10_000_000)
    """Open links of one private key. A server needs few; a farm of workers has hundreds."""
    public_links: int = Field(default=100_000, ge=0, le=10_000_000)
    """Open links of one public key, over all viewers."""
    private_links_per_s: float = Field(default=100, ge=0, le=1_000_000)
    """New links of one private key: all its links are open again 10 s after a deploy."""
    public_links_per_s: float = Field(default=2000, ge=0, le=1_000_000)
    """New links of one public key: as many as one relay can open."""
    address_links: int = Field(default=10_000, ge=0, le=10_000_000)
    """Open links of one client address. Many: without trusted proxies, a balancer is one address."""
    address_links_per_s: float = Field(default=1000, ge=0, le=1_000_000)
    """New links of one client address. Many, for the same reason."""
    replays: int = Field(default=50, ge=0, le=1_000_000)
    """Replays at a time of one private key, or of one public key and address, that read the log."""
    log_rounds_per_min: int = Field(default=2_000_000, ge=0, le=1_000_000_000)
    """Rounds read from the log for one private key, or one public key and address: two million-round replays."""
    subscribes_per_min: int = Field(default=600, ge=0, le=10_000_000)
    """Messages that change a subscription, of one private key, or of one public key and address."""
    filters: int = Field(default=200, ge=0, le=1_000_000)
    """Distinct filters of one key at a time. Each costs every round a comparison."""
    wrong_credentials_per_min: int = Field(default=60, ge=0, le=1_000_000)
    """Wrong credentials of one client address. A client with a wrong key repeats it every few seconds."""
    shared: bool = True
    """Count what a key uses on all relays, with messages over NATS. Off: each relay applies the limits alone."""


class LinkSettings(Section):
    heartbeat_s: float = Field(default=14.0, ge=0.1, le=55)
    """Time between comments and pings. The contract is one every 15 s; proxies often close after 60 s of silence."""
    unsent_bytes: int = Field(default=1 << 20, ge=16 << 10)
    """Unsent bytes of one link before it is ended as slow. The client reconnects with its cursor and loses nothing."""
    max_age_s: float = Field(default=3600, ge=1)
    """Maximum age of a link, kept to a second. Each ends at an age from 5/6 of it on. Cloud Run cuts at an hour."""
    retry_ms: int = Field(default=2000, ge=0, le=600_000)
    """The reconnect delay that clients get, and the spread of random delays."""
    sse_end: Literal["auto", "clean", "unclean"] = "auto"
    """How event streams end that their client should open again: with the last chunk, or without. auto: without it for
    clients written in Go, some of which stop after a complete body."""
    message_bytes: int = Field(default=4096, ge=128, le=1 << 20)
    """Maximum size of a message from a WebSocket client."""
    frames_per_heartbeat: int = Field(default=100, ge=20, le=1_000_000)
    """Maximum number of frames that a WebSocket client may send between two heartbeats: messages, fragments, pings."""
    compiled_sends: bool = True
    """Send rounds in the compiled loop, where it is installed. Off: through the transport of each connection."""
    linger_s: float = Field(default=5.0, ge=0.1, le=60)
    """How long a client may take to read the disconnect of its ended link."""
    max_links: int = Field(default=0, ge=0)
    """Maximum number of links of this instance, over all protocols. 0: derived from the memory limit."""


class ReplaySettings(Section):
    ring_rounds: int = Field(default=500, ge=1)
    """Rounds kept in memory per game. They serve most reconnects without a read of the log."""
    ring_bytes: int = Field(default=1 << 20, ge=1 << 12)
    """Maximum size of these rounds in memory, per game."""
    concurrent: int = Field(default=2, ge=1, le=64)
    """Maximum number of concurrent page reads from the log for one key, so that they never delay live rounds. When
    several keys read, one more."""


class DrainSettings(Section):
    grace_s: float = Field(default=10.0, ge=0, le=3600)
    """Time between SIGTERM and the platform's SIGKILL: Cloud Run 10 s, Fargate and Container Apps 30 s."""
    margin_s: float = Field(default=2.0, ge=0)
    """Part of `grace_s` that is reserved for closing the remaining links."""
    accept_s: float | None = Field(default=None, ge=0, le=3600)
    """How long new connections are still accepted and given a reconnect delay; then the listeners close, so that a
    balancer sends them elsewhere. Not set: a fifth of `grace_s`, at most 2 s, in which platforms change their routes,
    and a relay without links ends at once.
    """

    @property
    def accepting_s(self) -> float:
        """`accept_s`, or its default."""
        return min(2.0, self.grace_s / 5) if self.accept_s is None else self.accept_s


class LoggingSettings(Section):
    format: Literal["auto", "json", "console"] = "auto"
    """auto: readable on a terminal, JSON lines elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
