"""The sections of the settings for administration: the admin API, the audit log, and the usage of keys."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from relay.config.sections import Section, check_tls_files


class AdminSettings(Section):
    """The section ``admin``: the HTTP API that changes keys."""

    host: str = "127.0.0.1"
    """Who reaches this port can guess credentials; so other machines need a decision, and should need a certificate."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """Not set: there is no such port. 0 lets the system choose."""
    tls_cert_file: Path | None = None
    """A certificate chain in PEM; enables TLS. A replaced file is used from the next handshake on."""
    tls_key_file: Path | None = None
    """The private key of `tls_cert_file`."""
    tls_client_ca_file: Path | None = None
    """Clients must present a certificate of this authority (mTLS), and a credential as well."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_tls_files(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)
        return self


class AuditSettings(Section):
    """The section ``audit``: the stream of all changes of keys, and of refused credentials."""

    max_age_s: float = Field(default=400 * 86_400, ge=3600)
    """How long entries are kept: a year, and a month to look at it."""
    max_bytes: int = Field(default=256 << 20, ge=1 << 20)
    """Size at which the oldest entries are removed before their time: about 500,000 changes."""
    refused_max_age_s: float = Field(default=90 * 86_400, ge=3600)
    """The same for refused credentials: a quarter, in which an attack is noticed."""
    refused_max_bytes: int = Field(default=64 << 20, ge=1 << 20)
    """Strangers cause these entries, so they have a stream and a size of their own."""


class UsageSettings(Section):
    """The section ``usage``: what each key uses."""

    interval_s: float = Field(default=15.0, ge=1, le=3600)
    """Time between reports of a relay: one small message each, however many keys there are."""
    max_age_s: float = Field(default=400 * 86_400, ge=3600)
    """How long the figures of an hour are kept: a year, and a month to write bills."""
    max_bytes: int = Field(default=512 << 20, ge=1 << 20)
    """Size at which the oldest figures are removed before their time."""
    metrics: bool = False
    """Whether ``/metrics`` has figures of each key. Off: a thousand keys would be ten thousand series."""
