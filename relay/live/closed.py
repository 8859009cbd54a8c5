"""The transport of a lost connection: it accepts every call and does nothing.

After its end a transport of uvloop raises `RuntimeError` for most calls, where asyncio's does nothing. A link whose
connection is lost gets this transport instead, so that code that writes to a link needs no check.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final


class ClosedTransport(asyncio.Transport):
    """Behaves as asyncio's transports do after `connection_lost`."""

    def write(self, data: Any) -> None:
        """Drop bytes."""

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Drop bytes."""

    def write_eof(self) -> None:
        """Do nothing."""

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    def is_reading(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


CLOSED: Final = ClosedTransport()
"""Has no state: one serves the process."""
