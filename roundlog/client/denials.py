"""What the server has refused to a connection whose user lacks a permission.

nats-server reports that apart from the request, which then gets no answer. So a request without an answer is explained
by the refusals that came meanwhile. Knows nothing of requests.
"""

import re
import time
from typing import Final

from roundlog.log_errors import LogDenied

_VIOLATION: Final = re.compile(
    r"permissions violation for (publish|subscription) (?:with reply of|to) \"([^\"]*)\"", re.IGNORECASE
)
_KEPT: Final = 256
"""Subjects that are kept, of publishes and of subscriptions; more than a process uses, except those of games."""
_REPEAT_S: Final = 10.0
"""How often a refusal is reported: a publisher without permission causes thousands a second."""


class Denials:
    """The refusals of one connection, by subject. nats-py gives subjects in lower case."""

    def __init__(self, shown_url: str) -> None:
        self._shown_url = shown_url
        self._publishes: dict[str, float] = {}
        self._subscriptions: dict[str, float] = {}

    def note(self, text: str) -> tuple[LogDenied, bool] | None:
        """Read an error of the server: a refusal and whether to report it; None: it is another error."""
        found = _VIOLATION.search(text)
        if found is None:
            return None
        is_publish, subject, now = found[1].lower() == "publish", found[2].lower(), time.monotonic()
        kept = self._publishes if is_publish else self._subscriptions
        if len(kept) >= _KEPT:
            kept.clear()
        before, kept[subject] = kept.get(subject), now
        denied = LogDenied(self._shown_url, "publish" if is_publish else "subscribe", found[2])
        return denied, before is None or now - before > _REPEAT_S

    def clear(self) -> None:
        """Forget all: the connection is lost, and the next one may have other permissions."""
        self._publishes.clear()
        self._subscriptions.clear()

    def of_publish(self, subject: str, *, since: float) -> LogDenied | None:
        """Return the refusal of a publish that was sent at `since` (``time.monotonic()``) or later."""
        at = self._publishes.get(subject.lower())
        return None if at is None or at < since else LogDenied(self._shown_url, "publish", subject)

    def of_subscription(self, start: str) -> LogDenied | None:
        """Return the refusal of a subscription to a subject that begins with `start`."""
        if any(subject.startswith(start.lower()) for subject in self._subscriptions):
            return LogDenied(self._shown_url, "subscribe", start)
        return None
