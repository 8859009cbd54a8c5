"""The section ``backend`` of the settings (``RELAY_BACKEND_…``)."""

from pydantic import BaseModel, ConfigDict


class BackendSettings(BaseModel):
    """Which backend ingest runs; everything but the name is that backend's own options."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "file"

    @property
    def options(self) -> dict[str, object]:
        return dict(self.model_extra or {})
