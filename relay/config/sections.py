"""The sections of the settings of relay and ingest: units in names, reasons beside defaults, bounds checked when built.

Knows nothing of where values come from; that is `relay.config.settings`. The sections ``nats`` and ``publish`` are in
`backends`.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpSettings(_Section):
    host: str = "0.0.0.0"  # noqa: S104 - in a container the platform decides who reaches it
    port: int = Field(default=8080, ge=0, le=65535)
    """0 lets the system choose. Platforms that set ``PORT`` are honoured when this is not set."""
    request_s: float = Field(default=10.0, gt=0, le=60)
    """How long a new connection may take to send the head of its first request."""


class GrpcSettings(_Section):
    host: str = "0.0.0.0"  # noqa: S104 - as for HTTP
    port: int = Field(default=50051, ge=0, le=65535)
    """0 lets the system choose."""
    tls_cert_file: Path | None = None
    """A certificate chain in PEM: then the port speaks TLS. Replaced files count from the next handshake on."""
    tls_key_file: Path | None = None
    """Its key. Goes with `tls_cert_file`."""
    tls_client_ca_file: Path | None = None
    """Clients must show a certificate of this authority (mTLS)."""
    keepalive_s: float = Field(default=50.0, ge=10, le=3600)
    """Time between HTTP/2 pings; under the 60 s of silence at which many proxies cut."""
    keepalive_timeout_s: float = Field(default=20.0, ge=1, le=600)
    """A connection whose ping is not answered in this time is dead."""
    request_bytes: int = Field(default=64 << 10, ge=1 << 10)
    """The largest request; none of ours has a reason to be longer."""
    streams_per_connection: int = Field(default=1000, ge=1)
    """Calls at a time on one connection."""
    answers: int = Field(default=256, ge=1)
    """Calls with one answer at a time in this process, over gRPC and through the proxy; more are told to wait."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together; one of them is missing")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        return self


class AuthSettings(_Section):
    keys: SecretStr = SecretStr("")
    """Keys as one line, for platforms without files; see docs/auth.md."""
    keys_file: Path | None = None
    """Keys as TOML. Both may be given."""
    token_secrets: SecretStr = SecretStr("")
    """``id:secret,id:secret``: the first signs stream tokens, all verify. The same on every relay."""


class LinkSettings(_Section):
    heartbeat_s: float = Field(default=14.0, ge=0.1, le=55)
    """Time between comments and pings. Clients are promised one every 15 s; proxies often cut at 60 s of silence."""
    unsent_bytes: int = Field(default=1 << 20, ge=16 << 10)
    """Bytes waiting for one client before it is ended as slow. It comes back with its cursor and loses nothing."""
    max_age_s: float = Field(default=3600, ge=1)
    """No link gets older: each ends at a random age between 5/6 of this and this. Cloud Run cuts at 60 minutes."""
    retry_ms: int = Field(default=2000, ge=0, le=600_000)
    """The reconnect delay that clients are given, and the spread of random delays."""
    message_bytes: int = Field(default=4096, ge=128, le=1 << 20)
    """The largest message a WebSocket client may send."""
    linger_s: float = Field(default=5.0, ge=0.1, le=60)
    """How long an ended client may take to read its goodbye."""
    max_links: int = Field(default=0, ge=0)
    """Links this instance takes, whatever their protocols. 0: what its memory limit has room for."""


class ReplaySettings(_Section):
    ring_rounds: int = Field(default=500, ge=1)
    """Rounds kept in memory per game: they answer most reconnects without asking the log."""
    ring_bytes: int = Field(default=1 << 20, ge=1 << 12)
    """And the memory they may take, per game."""
    concurrent: int = Field(default=2, ge=1, le=64)
    """Pages read from the log at a time for all replays together, so that they never starve live rounds."""


class DrainSettings(_Section):
    grace_s: float = Field(default=10.0, ge=0, le=3600)
    """Time between SIGTERM and the platform's SIGKILL: Cloud Run 10 s, Fargate and Container Apps 30 s."""
    margin_s: float = Field(default=2.0, ge=0)
    """Part of the grace that is kept for closing what is left."""


class LoggingSettings(_Section):
    format: Literal["auto", "json", "console"] = "auto"
    """auto: readable on a terminal, JSON lines elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
