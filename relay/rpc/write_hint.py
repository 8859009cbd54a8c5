"""Let several messages of a stream leave in one write: gRPC's core can do that, and grpc.aio does not offer it.

Owns the only use of grpcio's internals. The core takes a hint with each message: its write may wait for the next one.
grpc.aio has no parameter for the hint. It passes one flag to the core, for messages that are not to be compressed, and
reads the flag's value at each message. The relay compresses no gRPC messages, so that value can include the hint.
Why, and what it gives: docs/adr/0012-several-messages-in-one-write.md
https://grpc.github.io/grpc/core/grpc__types_8h.html (GRPC_WRITE_BUFFER_HINT)
"""

from typing import Any, Final

import grpc
import structlog

log = structlog.get_logger()

MESSAGES_PER_WRITE: Final = 8
"""More save little and delay the first message of a burst."""


def enable_write_hint() -> bool:
    """Make `buffer_next_write` work in this process; return False when the installed grpcio has other internals.

    The relay works without the hint: `buffer_next_write` then has no effect, and each message is a write of its own.
    """
    try:
        from grpc._cython.cygrpc import WriteFlag  # type: ignore[import-not-found]  # it has no stubs

        WriteFlag.no_compress |= WriteFlag.buffer_hint
    except (ImportError, AttributeError, TypeError) as error:
        log.warning("grpc_write_hint_missing", grpcio=grpc.__version__, error=str(error))
        return False
    return True


def buffer_next_write(context: Any) -> None:
    """Let the call's next message wait in gRPC until the message after it, or the end of the call, is written.

    One of the two must follow at once. Call this only after the initial metadata was sent: gRPC would never send
    initial metadata that leaves with a buffered message.
    """
    context.disable_next_message_compression()
