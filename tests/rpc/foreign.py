"""Third-party clients, as programs: how each is started, and what it printed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from auth.key_secret import DEMO_KEY
from rounds import datastream_pb2 as pb
from tests.clients.program import Program
from tests.clients.tools import ROOT, go_program, java_classes, node_packages, rust_program, tool
from tests.rpc.conftest import GrpcRelay

_FOLDER: Final = Path(__file__).parent
NODE: Final = _FOLDER / "node"
GO: Final = _FOLDER / "go"
INTEROP: Final = _FOLDER / "interop"
JAVA: Final = _FOLDER / "java"
RUST: Final = _FOLDER / "rust"
PROTO_FILE: Final = ROOT / "proto" / "datastream.proto"

WAYS: Final = (
    "grpc-js",
    "grpc-go",
    "grpc-java",
    "tonic",
    "connect node-connect-json",
    "connect node-connect-proto",
    "connect node-grpc-web",
    "connect node-grpc",
    "connect web-connect-json",
    "connect web-connect-proto",
    "connect web-grpc-web",
    "grpc-web binary",
    "grpc-web text",
)
"""Program and variant: every library, in every protocol that it speaks."""
STREAMING: Final = tuple(way for way in WAYS if way != "grpc-web binary")
"""Those that hand on messages before the end of a stream: grpc-web does so as text only."""
HTTP2: Final = ("grpc-js", "grpc-go", "grpc-java", "tonic", "connect node-grpc")
"""Those that speak gRPC itself, over HTTP/2."""


class CallEnd(NamedTuple):
    """The status of a call; its code by the one name that all libraries understand."""

    code: str
    message: str
    trailers: Mapping[str, str]


class ScriptCall:
    """A program that calls one method; its messages, as it prints them."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def stop_reading(self) -> None:
        """Stop the program, as a machine that swaps does; its connection stays."""
        os.kill(self._program.pid, signal.SIGSTOP)

    def read_again(self) -> None:
        """Let the program continue after `stop_reading`."""
        os.kill(self._program.pid, signal.SIGCONT)

    async def until_end(self, *, at_most: int | None = None) -> tuple[list[dict[str, Any]], CallEnd | None]:
        """Wait for the end of the call, or `at_most` messages; return those that were not returned yet, and the end."""
        found = list[dict[str, Any]]()
        while at_most is None or len(found) < at_most:
            facts = json.loads((await self._lines('^{"event":', 1))[0])
            if facts["event"] == "end":
                return found, _end_of(facts)
            found.append(facts["message"])
        return found, None

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """Wait for `count` more messages."""
        return [json.loads(line)["message"] for line in await self._lines('^{"event":"message"', count)]

    async def end(self) -> CallEnd:
        """Wait for the end of the call."""
        return _end_of(json.loads((await self._lines('^{"event":"end"', 1))[0]))

    async def _lines(self, pattern: str, count: int) -> list[str]:
        found = await asyncio.to_thread(self._program.wait_for, pattern, count=count)
        return [match.string for match in found]


def _end_of(facts: Mapping[str, Any]) -> CallEnd:
    # grpc-js says NOT_FOUND, connect NotFound.
    code = facts["code"].replace("_", "").lower()
    return CallEnd(code, facts["sentence"], {name.lower(): value for name, value in facts["trailers"].items()})


@asynccontextmanager
async def calling(
    way: str, relay: GrpcRelay, method: str, request: Mapping[str, Any], *, key: str = DEMO_KEY, folder: Path
) -> AsyncIterator[ScriptCall]:
    """Call a method in one of `WAYS` while the block runs."""
    script, _, variant = way.partition(" ")
    command = await asyncio.to_thread(_command, script)
    descriptors = folder / "datastream.binpb"
    descriptors.write_bytes(descriptor_set())
    if script == "grpc-js":
        command += [relay.address, key, str(PROTO_FILE)]
    elif not variant:
        command += [relay.address, key, str(descriptors)]
    else:
        url = f"http://{relay.address}" if variant == "node-grpc" else f"{relay.url}/api/grpc"
        command += [variant, url, key, str(descriptors)]
    async with running([*command, method, json.dumps(request)], folder=NODE) as program:
        yield ScriptCall(program)


def _command(name: str) -> list[str]:
    """How a program is started; it is installed or built first. Skips the test without its language."""
    match name:
        case "grpc-go":
            return [go_program(GO)]
        case "grpc-java":
            return [tool("java"), "-cp", java_classes(JAVA), "GrpcJava"]
        case "tonic":
            return [rust_program(RUST, "tonic-client")]
    node_packages(NODE)
    return [tool("node"), f"{name}.js"]


@asynccontextmanager
async def running(command: list[str], *, folder: Path = ROOT) -> AsyncIterator[Program]:
    """Run a program while the block runs."""
    program = await asyncio.to_thread(Program, command, cwd=folder)
    try:
        yield program
    finally:
        await asyncio.to_thread(program.stop)


def buf() -> str:
    """The path of buf; skip the test when npm cannot install it."""
    node_packages(NODE)
    return str(NODE / "node_modules" / ".bin" / "buf")


def grpcurl() -> str:
    """The path of grpcurl, from the system or from ``go install``; skip the test without it."""
    ours = ROOT / ".cache" / "bin" / "grpcurl"
    return str(ours) if os.access(ours, os.X_OK) else tool("grpcurl")


def descriptor_set() -> bytes:
    """The schema, for clients without generated code."""
    files = []
    for descriptor in (timestamp_pb2.DESCRIPTOR, pb.DESCRIPTOR):
        file = FileDescriptorProto()
        descriptor.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                field.json_name = descriptor.message_types_by_name[message.name].fields_by_name[field.name].json_name
        files.append(file)
    return FileDescriptorSet(file=files).SerializeToString()
