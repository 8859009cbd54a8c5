"""gRPC calls as the bytes that a client sends, for tests that decide themselves what is read and when."""

from h2.config import H2Configuration
from h2.connection import H2Connection

from auth.key_secret import DEMO_KEY


def raw_calls(
    path: str, body: bytes, *, count: int = 1, key: str = DEMO_KEY, ended: bool = True, cancelled: bool = False
) -> bytes:
    """Return a connection's preface and calls of one method, each with the same body.

    Args:
        path: Of the method, such as ``/datastream.DataStream/StreamAll``.
        body: The request message and its five bytes, or a part of them.
        count: Calls on the connection.
        key: The API key.
        ended: Whether the client ends each request.
        cancelled: Whether it resets each call at once.
    """
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "relay")]
    headers += [("content-type", "application/grpc"), ("te", "trailers"), ("x-api-key", key)]
    for _ in range(count):
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, headers)
        client.send_data(stream, body, end_stream=ended)
        if cancelled:
            client.reset_stream(stream)
    return client.data_to_send()
