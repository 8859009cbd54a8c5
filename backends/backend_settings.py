"""The section ``backend`` of the settings (``RELAY_BACKEND_…``)."""

from pydantic import BaseModel, ConfigDict


class BackendSettings(BaseModel):
    """The backend that ingest runs. Every field except `name` is an option of that backend."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "file"

    @property
    def options(self) -> dict[str, object]:
        return dict(self.model_extra or {})
