"""Resume a link from memory in one step, without a replay: most reconnects need no more.

Owns when that is possible: everything after the client's cursor is in the ring, and is little enough for one turn of
the loop. Anything else is a replay (`relay.history.replay`).
"""

from relay.history.history import History
from relay.history.start import Start, hello
from relay.history.writer import most_in_a_turn, send
from relay.live.channels import Subscription
from relay.live.link import Link


def resume_at_once(history: History, link: Link, wanted: Subscription, start: Start) -> bool:
    """Write what follows the cursor that a stream starts after; the caller then subscribes the link in the same turn.

    Returns False when it takes a replay. Nothing was written then.
    """
    after, hub = start.after, history.hub
    if after is None or start.until_ms is not None or start.speed is not None or after.epoch != hub.head.epoch:
        return False
    if after.sequence < hub.ring.whole_from(wanted.games):
        return False
    tail = history.tails.after(after.sequence, wanted, link.form, limit=most_in_a_turn())
    if tail is None:
        return False
    if link.ended is None:
        if start.receives_events:
            link.send_event(hello(hub.bounds, complete=True))
        send(history, link, tail)
    history.stats.warm += 1
    return True
