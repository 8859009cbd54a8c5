"""Have several messages of a stream leave in one write, which grpc.aio cannot do and gRPC's core can.

Owns the one place of the relay that reaches into grpcio. The core takes a hint with each message: it may wait for the
next one. grpc.aio has no name for that; it gives the core one flag only, for a message that is not to be compressed,
and looks its value up when it is needed. We compress nothing over gRPC, so that flag brings the hint along.
Why, and what it gives: docs/adr/0012-several-messages-in-one-write.md
https://grpc.github.io/grpc/core/grpc__types_8h.html (GRPC_WRITE_BUFFER_HINT)
"""

from contextlib import suppress
from typing import Any, Final

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no stubs

TOGETHER: Final = 8
"""Messages in one write. More save little and make the first of a burst wait for longer."""


def enable() -> None:
    """Make `hold` work in this process. Without this, or with a grpcio made otherwise, `hold` changes nothing."""
    with suppress(AttributeError, TypeError):
        cygrpc.WriteFlag.no_compress |= cygrpc.WriteFlag.buffer_hint


def hold(context: Any) -> None:
    """Let the call's next message wait in gRPC for the one after it, which must come at once, or for the call's end.

    Only after the initial metadata was sent: together with a held message it is never sent.
    """
    context.disable_next_message_compression()
