"""When a process that cannot publish lets another one read the source.

Pure: no I/O; the caller gives the times, in seconds of `boot_s`. Knows nothing of what a source is: see
`backends.contract.HasStandby`. Why: docs/adr/0021-late-rounds-are-refused.md
"""


class HandedOver(Exception):
    """This process cannot publish, and lets another one read. ``str()`` says why. Nothing of what it read is kept."""


def why_hand_over(
    after_s: float, now: float, *, lost_at: float | None, leads: bool, waiting_since: float | None
) -> str | None:
    """Return why to let another process read; None: there is no reason.

    Args:
        after_s: The limit; 0: there is none.
        now: The time.
        lost_at: Since when there is no connection to the log; None: there is one.
        leads: Whether this process keeps others from reading.
        waiting_since: Since when the oldest round that was read is not stored; None: there is none.
    """
    if not after_s:
        return None
    if waiting_since is not None and now - waiting_since >= after_s:
        return f"nothing was stored for {now - waiting_since:.1f} s"
    if leads and lost_at is not None and now - lost_at >= after_s:
        return f"the log was unavailable for {now - lost_at:.1f} s"
    return None
