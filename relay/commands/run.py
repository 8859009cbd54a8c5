"""Run a command on uvloop, and end it: one line on stderr for each error that a user can correct."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

from relay.commands.interrupt import end_quietly_on_interrupt, interrupted_status, raise_on_interrupt


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; exit with status 1 and one line per error when `work` raises errors that a user can correct."""
    import uvloop

    try:
        raise_on_interrupt()  # so that the runner cancels the work, which then cleans up
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except KeyboardInterrupt:
        raise SystemExit(interrupted_status()) from None
    except BrokenPipeError:  # the reader of stdout has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except Exception as error:
        from relay.commands.user_errors import exit_status, sentences

        lines = sentences(error)
        if lines is None:
            raise
        fail("\n".join(lines), status=exit_status(error))
    finally:
        end_quietly_on_interrupt()


def load_settings(overrides: dict[str, Any], *, log_level: str | None = None, quickly: bool = False) -> Any:
    """Load the settings and configure logging; exit with one line per error when a setting is wrong.

    `quickly`: see `relay.config.settings.load`.
    """
    from relay.config.logs import configure, write_without_blocking
    from relay.config.settings import InvalidSettings, load

    try:
        settings = load(overrides, quickly=quickly)
    except InvalidSettings as error:
        fail(str(error))
    level = settings.log.level if log_level is None or "level" in settings.log.model_fields_set else log_level
    configure(log_format=settings.log.format, level=level)
    write_without_blocking()
    return settings


def fail(sentence: str, *, status: int = 1) -> NoReturn:
    """Print each line of `sentence` on stderr, without the secrets that a user may have pasted, and exit."""
    from auth.redact import redact

    for line in sentence.splitlines():
        print(f"stream-relay: {redact(line)}", file=sys.stderr)
    raise SystemExit(status)
