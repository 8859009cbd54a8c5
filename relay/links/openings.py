"""What a link is opened for, as the limits of its key and address see it."""

from functools import partial

from relay.admission.limits.link_limits import Opening
from relay.history.locate import needs_log
from relay.history.start import Start
from relay.live.channels import Subscription
from relay.live.hub import Hub


def opening_of(hub: Hub, subscription: Subscription, start: Start) -> Opening:
    """Return what a link with this subscription and start is opened for."""
    reads_log = None if start.is_live else partial(needs_log, hub, start, subscription.games)
    return Opening(resumes=start.after is not None, filter=subscription.filter, reads_log=reads_log)
