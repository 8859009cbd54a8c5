"""Entry point of the command ``stream-relay``. The commands are in `relay.commands`.

Their imports take a third of a second, in which Ctrl-C must not show a traceback: so nothing is imported here but what
sees to that.
"""

import os

from relay.commands.interrupt import end_quietly_on_interrupt


def main() -> None:
    """Run the command that the arguments name."""
    end_quietly_on_interrupt()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before any import of it: what it has to say, we say in a sentence
    from relay.commands.root import app

    app()
