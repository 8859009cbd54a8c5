"""Entry point of the command ``stream-relay``, also as ``python -m stream_relay``.

Checks first that the packages that it is about to import are those of this installation.
"""

import sys

from stream_relay.rooms import shadowed


def main() -> None:
    """Run the command that the arguments name."""
    if (sentence := shadowed()) is not None:
        print(f"stream-relay: {sentence}", file=sys.stderr)
        sys.exit(1)
    from relay.cli import main as run

    run()


if __name__ == "__main__":
    main()
