"""A port that cannot be listened on is one sentence, whichever library tried it."""

import asyncio
import socket

import pytest

from relay.errors import PortUnavailable


async def by_socket(port: int) -> None:
    socket.create_server(("127.0.0.1", port))


async def by_asyncio(port: int) -> None:
    await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", port)


@pytest.mark.parametrize("listen", [by_socket, by_asyncio])
async def test_taken_port_is_one_sentence_with_the_setting(listen: object) -> None:
    """The address once, the system's reason, and what to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as raised:  # noqa: PT011 - its text is what differs
            await listen(port)  # type: ignore[operator]

    error = PortUnavailable(f"127.0.0.1:{port}", raised.value, setting="RELAY_HTTP_PORT")
    assert str(error) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another port with RELAY_HTTP_PORT"
    )


def test_unknown_host_keeps_the_resolvers_reason() -> None:
    """An error of name resolution has no number of the system."""
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert "no-such-host:80: Name or service not known;" in str(PortUnavailable("no-such-host:80", error, setting="X"))
