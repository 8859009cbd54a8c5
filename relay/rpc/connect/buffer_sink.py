"""A sink that collects what is written before there is a transport."""


class BufferSink:
    """Collects bytes until there is a transport to write them to."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return len(self.data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Do nothing: there is no connection yet."""
