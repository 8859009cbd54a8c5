"""Health and reflection on a connection in memory: shares, what a client may leave unread, and the end."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as st

from relay.config.trusted_proxies import TrustedProxies
from relay.errors import BadRequest, NotAllowed
from relay.rpc.keyless import keyless_call
from relay.rpc.keyless.descriptors import ALPHA, V1, Descriptors
from relay.rpc.keyless.health import HealthService
from relay.rpc.keyless.keyless_call import waiting
from relay.rpc.keyless.open_calls import OpenCalls
from relay.rpc.keyless.readiness import Readiness
from relay.rpc.keyless.reflection import REFLECTIONS, Reflection
from relay.rpc.methods import SERVICE
from relay.rpc.status_code import StatusCode
from tests.rpc.calls.call_pair import CallPair, turns
from tests.waiting import until

CHECK: Final = "/grpc.health.v1.Health/Check"
WATCH: Final = "/grpc.health.v1.Health/Watch"
LIST: Final = "/grpc.health.v1.Health/List"
REFLECT: Final = f"/{V1}/ServerReflectionInfo"
TIMESTAMP: Final = "google/protobuf/timestamp.proto"
_ASK: Final = reflection_pb2.ServerReflectionRequest
_DESCRIPTORS: Final = Descriptors((SERVICE, *REFLECTIONS))


def calls(most: int, *, age_s: float = 60.0) -> OpenCalls:
    return OpenCalls(most, age_s=lambda: age_s, retry_ms=lambda: 5)


class Keyless:
    """A connection with the methods that need no key."""

    def __init__(
        self,
        *,
        obstacle: Callable[[], str | None] = lambda: None,
        age_s: float = 60.0,
        request_s: float = 60.0,
        check_key: Any = None,
        **options: Any,
    ) -> None:
        self.watches, self.reflections = calls(2, age_s=age_s), calls(2, age_s=age_s)
        self.waiting = waiting(request_s, TrustedProxies())
        health = HealthService(Readiness(obstacle), self.watches, self.waiting)
        shown = Reflection(_DESCRIPTORS, self.reflections, request_s=request_s, check_key=check_key)
        self.pair = CallPair({**health.methods(), **shown.methods()}, **options)

    def statuses(self, stream_id: int) -> list[int]:
        return [health_pb2.HealthCheckResponse.FromString(data).status for data in self.pair.messages(stream_id)]

    def answers(self, stream_id: int) -> list[Any]:
        return [reflection_pb2.ServerReflectionResponse.FromString(data) for data in self.pair.messages(stream_id)]

    async def settled(self) -> None:
        await turns(10)
        self.pair.settle()


async def test_calls_without_a_message_have_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest ends for another one; one whose message comes, or that ends, holds no place."""
    monkeypatch.setattr(keyless_call, "_WAITING", 2)
    keyless = Keyless()
    pair = keyless.pair
    first, second = (pair.call(path=path, ended=False) for path in (CHECK, WATCH))
    third = pair.call(path=LIST, ended=False)

    code, message, trailers = pair.status(first)
    assert (code, trailers["retry-after-ms"]) == (StatusCode.RESOURCE_EXHAUSTED, "1000")
    assert "without a message" in message
    pair.client.send_data(third, b"\0\0\0\0\0", end_stream=True)
    pair.client.reset_stream(second)
    pair.settle()
    assert pair.code(third) is StatusCode.OK
    assert keyless.waiting.share.count == 0
    assert pair.calls.open == 0


async def test_call_that_ends_without_a_message() -> None:
    """It is malformed, and holds no place; nor does one that is late or malformed otherwise."""
    keyless = Keyless(request_s=0.01)
    pair = keyless.pair
    without, late = pair.call(path=CHECK), pair.call(path=WATCH, ended=False)
    malformed, unread = pair.call(b"\xff", path=CHECK), pair.call(body=b"\x07", path=LIST)
    await until(lambda: keyless.waiting.share.count == 0)
    pair.settle()

    codes = [pair.code(stream) for stream in (without, malformed, late)]
    assert codes == [StatusCode.INVALID_ARGUMENT, StatusCode.INVALID_ARGUMENT, StatusCode.DEADLINE_EXCEEDED]
    assert pair.code(unread) is StatusCode.INVALID_ARGUMENT


async def test_watcher_at_each_end() -> None:
    """Its share, its age and a relay that stops: a status, and the last change before it."""
    obstacle: list[str] = []
    keyless = Keyless(obstacle=lambda: obstacle[0] if obstacle else None)
    pair = keyless.pair
    watches = [pair.call(b"", path=WATCH) for _ in range(3)]
    await keyless.settled()
    assert pair.status(watches[0])[:2] == (StatusCode.RESOURCE_EXHAUSTED, "too many calls without a key")
    assert keyless.watches.share.count == 2

    obstacle.append("draining")
    keyless.watches.stop()
    await keyless.settled()
    for watch in watches[1:]:
        assert keyless.statuses(watch) == [1, 2]
        assert pair.status(watch) == (StatusCode.UNAVAILABLE, "draining: call again", {"retry-after-ms": "5"})
    assert keyless.watches.share.count == 0


async def test_watcher_whose_time_is_over() -> None:
    """It calls again."""
    keyless = Keyless(age_s=0.01)
    watch = keyless.pair.call(b"", path=WATCH)
    await until(lambda: keyless.watches.share.count == 0 and keyless.pair.calls.open == 0)
    keyless.pair.settle()

    assert keyless.pair.status(watch)[:2] == (StatusCode.UNAVAILABLE, "max_age: call again")


async def test_watcher_that_leaves() -> None:
    """Its task and its place are gone."""
    keyless = Keyless()
    pair = keyless.pair
    watch = pair.call(b"", path=WATCH)
    await keyless.settled()
    assert keyless.watches.share.count == 1
    pair.client.reset_stream(watch)
    pair.settle()
    await turns()

    assert (keyless.watches.share.count, pair.calls.open) == (0, 0)


async def test_reflection_answers_each_request() -> None:
    """In order, as they come; after the last one it ends."""
    keyless = Keyless()
    pair = keyless.pair
    stream = pair.call(_ASK(list_services="").SerializeToString(), path=REFLECT, ended=False)
    await keyless.settled()
    assert [service.name for service in keyless.answers(stream)[0].list_services_response.service] == [
        SERVICE,
        V1,
        ALPHA,
    ]
    data = _ASK(host="h", file_containing_symbol=SERVICE).SerializeToString()
    pair.client.send_data(stream, b"\0" + len(data).to_bytes(4, "big") + data, end_stream=True)
    pair.settle()
    await keyless.settled()

    answer = keyless.answers(stream)[1]
    assert answer.original_request.host == "h"
    assert pair.code(stream) is StatusCode.OK
    assert keyless.reflections.share.count == 0


async def test_reflection_client_that_does_not_read() -> None:
    """It may send no more after a while, and its answers are made when there is room for them."""
    keyless = Keyless(window=0)
    pair = keyless.pair
    data = _ASK(file_containing_symbol=SERVICE).SerializeToString()
    message = b"\0" + len(data).to_bytes(4, "big") + data
    stream = pair.call(path=REFLECT, ended=False)
    for _ in range(40):
        pair.client.send_data(stream, message * 40)
        pair.upload()
        await turns()

    sent = next(iter(pair.server.open_streams))
    assert sent.queued_bytes < 64 << 10
    assert sent.is_held


async def test_reflection_with_a_check_of_keys() -> None:
    """The status of the refusal, and no place is taken."""

    def refuse(_call: object) -> None:
        raise NotAllowed("no")

    keyless = Keyless(check_key=refuse)
    stream = keyless.pair.call(_ASK(list_services="").SerializeToString(), path=REFLECT)
    await keyless.settled()

    assert keyless.pair.status(stream)[:2] == (StatusCode.PERMISSION_DENIED, "no")
    assert keyless.reflections.share.count == 0


async def test_reflection_client_that_is_silent_or_malformed() -> None:
    """Each request has its time."""
    keyless = Keyless(request_s=0.01)
    pair = keyless.pair
    silent = pair.call(_ASK(list_services="").SerializeToString(), path=REFLECT, ended=False)
    malformed = pair.call(b"\xff", path=REFLECT, ended=False)
    await until(lambda: pair.calls.open == 0)
    await keyless.settled()

    assert len(keyless.answers(silent)) == 1
    assert (pair.code(silent), pair.code(malformed)) == (StatusCode.DEADLINE_EXCEEDED, StatusCode.INVALID_ARGUMENT)
    assert keyless.reflections.share.count == 0


def answered(**asked: Any) -> Any:
    return reflection_pb2.ServerReflectionResponse.FromString(_DESCRIPTORS.answer(_ASK(**asked).SerializeToString()))


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"file_containing_symbol": SERVICE}, ["rounds/datastream.proto", TIMESTAMP]),
        ({"file_containing_symbol": f"{SERVICE}.Replay"}, ["rounds/datastream.proto", TIMESTAMP]),
        ({"file_by_filename": TIMESTAMP}, [TIMESTAMP]),
        ({"file_containing_symbol": V1}, ["grpc/reflection/v1/reflection.proto"]),
        ({"file_by_filename": "grpc/reflection/v1/reflection.proto"}, ["grpc/reflection/v1/reflection.proto"]),
    ],
)
def test_files(asked: dict[str, str], names: list[str]) -> None:
    """With all that they depend on."""
    found = answered(**asked).file_descriptor_response.file_descriptor_proto
    files = [FileDescriptorProto.FromString(data) for data in found]

    assert [file.name for file in files] == names


def test_version_1_is_v1alpha_in_another_package() -> None:
    """Nothing in it names the other one."""
    [data] = answered(file_containing_symbol=V1).file_descriptor_response.file_descriptor_proto

    assert b"v1alpha" not in data
    assert FileDescriptorProto.FromString(data).service[0].name == "ServerReflection"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"file_containing_symbol": "no.Such"}, 5),
        ({"file_containing_symbol": f"{SERVICE}.NoSuch"}, 5),
        ({"file_by_filename": "no.proto"}, 5),
        ({"file_by_filename": ""}, 5),
        ({"all_extension_numbers_of_type": "no.Such"}, 5),
        ({"file_containing_extension": {"containing_type": "no.Such", "extension_number": 1}}, 5),
        ({"file_containing_extension": {"containing_type": f"{SERVICE[:10]}.Round", "extension_number": 1}}, 5),
        ({}, 3),
    ],
)
def test_what_is_not_there(asked: dict[str, Any], code: int) -> None:
    """An error in the stream, which continues."""
    answer = answered(**asked)

    assert answer.error_response.error_code == code
    assert answer.original_request == _ASK(**asked)


def test_extensions_of_a_message_without_any() -> None:
    """An empty list."""
    answer = answered(all_extension_numbers_of_type="datastream.Round").all_extension_numbers_response

    assert (answer.base_type_name, list(answer.extension_number)) == ("datastream.Round", [])


@given(st.binary(max_size=60))
def test_any_request_has_an_answer_or_is_malformed(data: bytes) -> None:
    """Nothing else is raised."""
    try:
        _DESCRIPTORS.answer(data)
    except BadRequest:
        return


@pytest.mark.service
def test_import_without_grpc() -> None:
    """Serving takes no part of grpcio."""
    code = "import sys, relay.serve; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
