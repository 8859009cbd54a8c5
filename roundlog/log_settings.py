"""The section ``nats`` of the settings (``RELAY_NATS_…``): the server, the credentials, and the stream."""

import re
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

CONNECTION_FIELDS: Final = (
    "url",
    "creds_file",
    "user",
    "password",
    "token",
    "inbox_prefix",
    "tls_ca_file",
    "tls_cert_file",
    "tls_key_file",
)
"""Those of `LogSettings` that say which server, and who we are there; the others are of the log itself."""

_INBOX: Final = "_INBOX"
_SUBJECT: Final = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


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
    inbox_prefix: str | None = Field(default=None, pattern=_SUBJECT, max_length=128)
    """Where answers come to. By default ``_INBOX.<user>`` for a user with a name, so that permissions can keep users
    from the answers of others, else ``_INBOX``. A permission for ``_INBOX.>`` covers both."""
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
    def answers_to(self) -> str:
        """The prefix of the subjects to which answers come: `inbox_prefix`, or the one of the user."""
        if self.inbox_prefix is not None:
            return self.inbox_prefix
        user = self.user or urlsplit(self.servers[0]).username or ""
        return f"{_INBOX}.{user}" if _TOKEN.fullmatch(user) else _INBOX

    @property
    def shown_url(self) -> str:
        """`url` without user names, passwords and tokens."""
        return ",".join(_without_credentials(url) for url in self.servers)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], path="", query="", fragment="").geturl()
