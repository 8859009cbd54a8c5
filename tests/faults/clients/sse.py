"""SSE clients that read the stream as the HTML standard says (section 9.2.6), and send back the last event id."""

from collections.abc import AsyncGenerator

import msgspec

from tests.faults.clients.client import Address, Client, Ended, Opened, sequence_of
from tests.faults.clients.websocket import session
from tests.faults.values import Item


class SseClient(Client):
    """A client that follows docs/sse.md."""

    retry_ms = 300.0

    async def connection(self, address: Address, after: str | None) -> AsyncGenerator[Item | Opened, None]:
        headers = {"X-API-Key": self.world.key} | ({"Last-Event-ID": after} if after and self.view.chains else {})
        query = self.query(None if "Last-Event-ID" in headers else after)
        async with (
            session(slow=self.plan.behaviour == "slow") as http,
            http.get(f"{address.url}/sse{self.path}", params=query, headers=headers) as answer,
        ):
            if answer.status != 200:
                raise Ended(f"status {answer.status}", retry_ms=self.retry_ms)
            yield Opened()
            if (item := self.begin(answer.headers, after)) is not None:
                yield item
            block = _Block()
            while raw := await answer.content.readline():
                if line := raw.decode().rstrip("\r\n"):
                    block.add(line)
                else:
                    item, block = self._dispatch(block), _Block()
                    if item is not None:
                        yield item
        raise Ended("end of stream", retry_ms=self.retry_ms)

    def _dispatch(self, block: "_Block") -> Item | None:
        if block.retry_ms is not None:
            self.retry_ms = block.retry_ms
        if block.data:
            fields = msgspec.json.decode("\n".join(block.data))
            is_round = block.name in ("", "message")
            item = self.entry(fields) if is_round else self.event(fields | {"event": block.name})
            self.cursor = block.id or self.cursor
            return item
        if block.id and (self.cursor is None or sequence_of(block.id) > sequence_of(self.cursor)):
            return self.place(block.id)
        return None


class _Block:
    """The fields of one event."""

    def __init__(self) -> None:
        self.name = self.id = ""
        self.data: list[str] = []
        self.retry_ms: float | None = None

    def add(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self.name = value
            case "data":
                self.data.append(value)
            case "id":
                self.id = value
            case "retry":
                self.retry_ms = float(value)
