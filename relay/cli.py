"""Entry point of the command ``stream-relay``. The commands are in `relay.commands`.

Importing the commands takes a third of a second, in which Ctrl-C must not show a traceback. So this module imports only
the handler that prevents it.
"""

import os
import sys

from relay.commands.interrupt import end_quietly_on_interrupt


def main() -> None:
    """Run the command in the program's arguments."""
    end_quietly_on_interrupt()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before grpc is imported: we report its errors
    from relay.commands.plain_serve import plain_overrides, plain_serve

    overrides = plain_overrides(sys.argv[1:])
    if overrides is not None:
        plain_serve(overrides)
        return
    from relay.commands.root import app

    app()
