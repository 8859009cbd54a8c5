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

    shown = str(PortUnavailable("no-such-host:80", error, setting="RELAY_HTTP_MONITOR_PORT"))
    assert shown == (
        "cannot listen on no-such-host:80: Name or service not known; choose another address with RELAY_HTTP_HOST"
    )


def test_address_of_another_machine_names_the_setting_of_the_address() -> None:
    """Another port would not help."""
    with pytest.raises(OSError) as raised:  # noqa: PT011 - its text is what differs
        socket.create_server(("192.0.2.1", 0))  # RFC 5737: an address for documentation, on no machine

    error = PortUnavailable("192.0.2.1:9100", raised.value, setting="RELAY_INGEST_PORT")
    assert str(error).endswith("; choose another address with RELAY_INGEST_HOST")
