"""The schema: linted, compatible with published clients, and the source of all generated code."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from rounds import datastream_pb2 as pb
from tests.clients.tools import ROOT
from tests.rpc.foreign import PROTO_FILE, buf

_PROTO: Final = PROTO_FILE.parent
_PUBLISHED: Final = _PROTO / "published.binpb"
"""The schema that clients have. Replaced at each release: see proto/README.md."""


@pytest.mark.service
def test_schema_is_clean() -> None:
    """`buf lint` finds nothing."""
    done = _buf("lint", _PROTO)

    assert done.returncode == 0, done.stdout


@pytest.mark.service
def test_schema_breaks_no_client(tmp_path: Path) -> None:
    """It is compatible with the published schema; and the check finds incompatible changes."""
    kept = _buf("breaking", _PROTO, "--against", _PUBLISHED)
    shutil.copy(_PROTO / "buf.yaml", tmp_path)
    changed = PROTO_FILE.read_text("utf-8").replace("string game_slug = 2;", "string game_slug = 12;", 1)
    (tmp_path / PROTO_FILE.name).write_text(changed, "utf-8")
    broken = _buf("breaking", tmp_path, "--against", _PUBLISHED)

    assert kept.returncode == 0, kept.stdout
    assert broken.returncode != 0
    assert "game_slug" in broken.stdout


def _buf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([buf(), *arguments], capture_output=True, text=True, check=False, timeout=100)


def test_generated_python_is_current(tmp_path: Path) -> None:
    """`make proto` would change nothing."""
    [recipe] = [line for line in (ROOT / "Makefile").read_text("utf-8").splitlines() if "grpc_tools.protoc" in line]
    options = [word.replace(":.", f":{tmp_path}") for word in recipe.split() if word.startswith("--")]
    options = [word.replace("python_out=.", f"python_out={tmp_path}") for word in options]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Irounds=proto", *options, "rounds/datastream.proto"]
    environment = {"PATH": str(Path(sys.executable).parent)}
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)

    made = sorted((tmp_path / "rounds").iterdir())
    assert [path.name for path in made] == ["datastream_pb2.py", "datastream_pb2.pyi"]
    for path in made:
        assert path.read_bytes() == (ROOT / "rounds" / path.name).read_bytes(), f"run make proto: {path.name} is old"


def test_generated_go_is_current() -> None:
    """The schema in the Go sample's code is that of the service."""
    source = (ROOT / "samples/grpc/go/datastream/datastream.pb.go").read_text("utf-8")
    literal = re.search(r'_rawDesc = "" \+\n((?:\t"(?:[^"\\]|\\.)*"(?: \+)?\n)+)', source)
    assert literal is not None
    inside = FileDescriptorProto.FromString(b"".join(_bytes(line) for line in literal[1].splitlines()))
    now = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(now)

    inside.name = now.name
    for message in inside.message_type:
        for field in message.field:
            field.ClearField("json_name")
    assert inside == now


def test_generated_go_service_is_current() -> None:
    """The Go sample's client has every method of the service, with its messages."""
    source = (ROOT / "samples/grpc/go/datastream/datastream_grpc.pb.go").read_text("utf-8")
    interface = re.search(r"type DataStreamClient interface \{\n(.*?)\n\}", source, re.DOTALL)
    assert interface is not None
    found = set(re.findall(r"^\t(\w+)\(.*in \*(\w+), .*\) \((.*), error\)$", interface[1], re.MULTILINE))

    methods = pb.DESCRIPTOR.services_by_name["DataStream"].methods
    assert found == {
        (
            method.name,
            method.input_type.name,
            f"grpc.ServerStreamingClient[{method.output_type.name}]"
            if method.server_streaming
            else f"*{method.output_type.name}",
        )
        for method in methods
    }


def test_generated_go_is_what_its_readme_makes(tmp_path: Path) -> None:
    """The command in the sample's README would change nothing; it needs Go's plugins."""
    ours = ROOT / ".cache" / "bin"
    for plugin in ("protoc-gen-go", "protoc-gen-go-grpc"):
        if shutil.which(plugin, path=f"{ours}{os.pathsep}{os.environ['PATH']}") is None:
            pytest.skip(f"{plugin} is not on this machine")
    folder = ROOT / "samples/grpc/go"
    [command] = re.findall(r"^protoc (.*)$", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    arguments = shlex.split(command.replace("_out=.", f"_out={tmp_path}"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        env={"PATH": f"{ours}{os.pathsep}{os.environ['PATH']}"},
    )

    for path in sorted((tmp_path / "datastream").iterdir()):
        assert path.read_bytes() == (folder / "datastream" / path.name).read_bytes(), f"{path.name} is old"


def _bytes(line: str) -> bytes:
    """Parse a line's Go string literal; its escapes are those of Python, except for non-ASCII characters."""
    text = re.sub(r"\\u([0-9a-f]{4})", lambda match: _escaped(chr(int(match[1], 16))), line.strip(" \t+"))
    value = ast.literal_eval("b" + re.sub(r"[^\x00-\x7f]", lambda match: _escaped(match[0]), text))
    assert isinstance(value, bytes)
    return value


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
