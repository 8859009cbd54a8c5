"""How a command runs and how it ends: on uvloop, with one line for whatever an operator or user can mend."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

import typer

from relay.commands.interrupt import end_quietly_on_interrupt, interrupted_status, raise_on_interrupt


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; stop with a sentence and status 1 when it fails in a way that a person can mend."""
    import uvloop

    from relay.commands.user_errors import sentences

    try:
        raise_on_interrupt()  # the runner cancels our work, and that cleans up
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(interrupted_status()) from None
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None
    except Exception as error:
        lines = sentences(error)
        if lines is None:
            raise
        fail("\n".join(lines))
    finally:
        end_quietly_on_interrupt()


def fail(sentence: str) -> NoReturn:
    """Print one line per fault on stderr and stop with status 1."""
    for line in sentence.splitlines():
        print(f"stream-relay: {line}", file=sys.stderr)
    raise typer.Exit(1)
