"""The section ``ingest`` of the settings (``RELAY_INGEST_…``), and which sections an ingest process reads."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from backends.backend_settings import BackendSettings
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings


class IngestSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "0.0.0.0"  # noqa: S104 - in a container the platform decides who reaches it
    port: int | None = Field(default=None, ge=0, le=65535)
    """Where the ingest process answers /healthz, /readyz and /metrics; unset: nowhere. 0 lets the system choose."""


class IngestSections(Protocol):
    """The sections of the settings that an ingest process reads."""

    @property
    def nats(self) -> LogSettings: ...
    @property
    def backend(self) -> BackendSettings: ...
    @property
    def publish(self) -> PublisherSettings: ...
