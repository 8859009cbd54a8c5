"""Batched direct get: how a request for stored messages is addressed, and how its answer ends.

Any replica answers, one may be behind, and the server keeps no state (nats-server >= 2.11). Knows nothing of the
messages themselves: `roundlog.reader` reads whole rounds, `roundlog.tail` only their headers.
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from roundlog.client.codes import NatsStatus
from roundlog.log_errors import LogUnavailable

_STATUS: Final = re.compile(rb"NATS/1\.0 ([0-9]{3})([^\r]*)")
_PENDING: Final = re.compile(rb"\r\nNats-Num-Pending: ([0-9]+)")


def direct_get_subject(stream: str) -> str:
    """Return the subject that takes requests for messages of a stream."""
    return f"$JS.API.DIRECT.GET.{stream}"


class TooManyResults(LogUnavailable):
    """The request matches more than the server answers at once. Nothing was sent."""


class AnswerEnd(NamedTuple):
    """The message without data that ends an answer."""

    status: int
    description: str
    remaining: int  # messages in the stream after the last of the batch that match the request

    @classmethod
    def of_block(cls, headers: bytes) -> Self | None:
        """Read a header block as the protocol has it; None: this message ends no answer."""
        status = _STATUS.match(headers)
        if status is None:
            return None
        pending = _PENDING.search(headers)
        description = status[2].decode(errors="replace").strip()
        return cls(int(status[1]), description, int(pending[1]) if pending else 0)

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> Self | None:
        """Read headers as nats-py has them; None: this message ends no answer."""
        status = headers.get("Status")
        if status is None:
            return None
        return cls(int(status), headers.get("Description", ""), int(headers.get("Nats-Num-Pending", 0)))

    @property
    def error(self) -> LogUnavailable | None:
        """The error that it reports; None: the answer is complete, and empty when nothing matched."""
        if self.status in (NatsStatus.END_OF_BATCH, NatsStatus.NOT_FOUND):
            return None
        kind = TooManyResults if self.status == NatsStatus.TOO_MANY_RESULTS else LogUnavailable
        return kind(f"the log answered '{self.status} {self.description}'")
