"""Which client follows which plan."""

from collections.abc import Mapping
from typing import Final

from tests.faults.clients.client import Client, World
from tests.faults.clients.readers import BulkReader, HistoryReader
from tests.faults.clients.rpc import ConnectClient, GrpcClient
from tests.faults.clients.sse import SseClient
from tests.faults.clients.websocket import WebSocketClient
from tests.faults.plan import ClientPlan, Protocol

_STREAMS: Final[Mapping[Protocol, type[Client]]] = {
    "ws": WebSocketClient,
    "sse": SseClient,
    "grpc": GrpcClient,
    "connect": ConnectClient,
}


def client_of(plan: ClientPlan, world: World) -> Client | HistoryReader:
    """Build the client of a plan."""
    match plan.behaviour:
        case "history":
            return HistoryReader(plan, world)
        case "bulk":
            return BulkReader(plan, world)
    return _STREAMS[plan.protocol](plan, world)
