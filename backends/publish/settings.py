"""The section ``publish`` of the settings (``RELAY_PUBLISH_…``): the bounds and the caution of the publisher."""

from pydantic import BaseModel, ConfigDict, Field


class PublisherSettings(BaseModel):
    """How much may be under way, and how sure to be before the source may forget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_in_flight: int = Field(default=4096, ge=1, le=8192)
    """Rounds read and not yet acked. Under 10,000, where nats-server begins to refuse publishes to one stream."""
    max_in_flight_bytes: int = Field(default=8 << 20, ge=64 << 10)
    """The same in bytes; the bound of the publisher's memory."""
    ack_timeout_s: float = Field(default=5.0, gt=0)
    """Silence after which a connection with rounds under way is given up. A cluster elects a leader in about 2 s."""
    tail_rounds: int = Field(default=10_000, ge=0)
    """How many of the log's newest rounds are known from the start, so that a restart doubles none of them. At least
    what can be acked and not confirmed at a crash: `max_in_flight`, or the source's largest transaction if larger."""
    recall_rounds: int = Field(default=500_000, ge=0)
    """How far back rounds are known at most when the source will yield more of them again than `tail_rounds`: those of
    a huge transaction, or of a slot that was left for another backend. About 100 bytes of memory each."""
    confirm_lag_s: float = Field(default=0.0, ge=0)
    """Confirm only what was acked longer ago. nats-server acks before fsync (``sync_interval``, 2 min): where a power
    failure of all replicas must lose nothing, set this above it, and the source sends again what was lost."""
    leave_s: float = Field(default=1.0, ge=0)
    """When stopped, how long to wait for acks of what is under way. The rest comes again at the next start."""

    def holding_nothing_back(self) -> "PublisherSettings":
        """The same, for a source that forgets nothing on our word."""
        return self.model_copy(update={"confirm_lag_s": 0.0})
