"""The section ``publish`` of the settings (``RELAY_PUBLISH_…``): the bounds and timeouts of the publisher."""

from pydantic import BaseModel, ConfigDict, Field


class PublisherSettings(BaseModel):
    """How much may be in flight, and what must be certain before an offset is confirmed to the source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_in_flight: int = Field(default=4096, ge=1, le=8192)
    """Rounds read and not yet acked. Below 10,000, where nats-server starts to refuse publishes to one stream."""
    max_in_flight_bytes: int = Field(default=8 << 20, ge=64 << 10)
    """The same in bytes; the bound of the publisher's memory."""
    ack_timeout_s: float = Field(default=5.0, gt=0)
    """Time without an ack after which a connection with rounds in flight is given up. Elections take about 2 s."""
    tail_rounds: int = Field(default=10_000, ge=0)
    """How many of the log's newest rounds are recognised after a start, so that none is stored twice. At least what
    can be acked and not confirmed at a crash: `max_in_flight`, or the source's largest transaction if larger."""
    recall_rounds: int = Field(default=500_000, ge=0)
    """How many are recognised at most when the source redelivers more than `tail_rounds`: after a huge transaction,
    or from a slot that was not used for a while. About 100 bytes of memory each."""
    correction_rounds: int = Field(default=100_000, ge=10_000)
    """Of how many rounds the corrections in the log are held in memory, about 600 bytes each. Those whose newest
    correction is the oldest are forgotten first; for a further correction of one, those of its game are read again."""
    confirm_lag_s: float = Field(default=0.0, ge=0)
    """Confirm only what was acked longer ago. nats-server acks before fsync (``sync_interval``, 2 min): where a power
    failure of all replicas must lose nothing, set this above it: the source then redelivers what was lost."""
    hand_over_s: float = Field(default=10.0, ge=0, le=3600)
    """How long a process may fail to store what it read, or be without the log, before it hands over to a standby; for
    backends that have standbys. 0: it never does. Above an election (2 s) and a restart of a server: a change of the
    reader takes less than a second, but every round in flight is read again."""
    leave_s: float = Field(default=1.0, ge=0)
    """When stopped, how long to wait for acks of what is in flight. The source redelivers the rest after a start."""

    def holding_nothing_back(self) -> "PublisherSettings":
        """The same, for a source that discards nothing when an offset is confirmed."""
        return self.model_copy(update={"confirm_lag_s": 0.0})
