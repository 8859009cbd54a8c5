"""Connections that were ended because of what their peers sent: counted by reason, and logged, few lines of a kind."""

from collections import Counter
from typing import Final

import structlog

from relay.config.log_limits import LineLimit
from relay.http2.http2_connections import Fault
from relay.http2.peer_budget import FaultReason

log = structlog.get_logger()

_LINES: Final = 5
"""Lines of one reason in 10 s. Each connection may cause one."""


class FaultReports:
    """The faults of the peers of one relay. Give `add` to `relay.http2.Http2Connections`."""

    def __init__(self) -> None:
        self.counts: Counter[FaultReason] = Counter(dict.fromkeys(FaultReason, 0))
        """How many connections were ended, by reason, since the start of this process."""
        self._limit = LineLimit(lines=_LINES)

    def add(self, fault: Fault) -> None:
        """Count and log a fault. Its text is not logged: parts of it may be what the peer has sent."""
        self.counts[fault.reason] += 1
        left_out = self._limit.allow(fault.reason)
        if left_out is not None:
            address = str(fault.address[0]) if isinstance(fault.address, tuple) else ""
            more = {"left_out": left_out} if left_out else {}
            code = fault.code.name.lower()
            # What is not HTTP/2 is a probe or a wrong port, as every port gets it: no news for an operator.
            write = log.debug if fault.reason is FaultReason.NOT_HTTP2 else log.info
            write("http2_fault", reason=str(fault.reason), code=code, address=address, streams=fault.streams, **more)
