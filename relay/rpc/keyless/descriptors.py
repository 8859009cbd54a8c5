"""What reflection shows: files of protobuf by name and by what they define. Pure.

The answers are those of grpcio-reflection, whose messages are used. Version 1 of the reflection service has the same
messages in another package.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from relay.rpc.convert import parse_message
from relay.rpc.status_code import StatusCode

ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
V1: Final = "grpc.reflection.v1.ServerReflection"
_FILE: Final = "grpc/reflection/v1/reflection.proto"

_Request: Any = reflection_pb2.ServerReflectionRequest  # the package has no types
_Answer: Any = reflection_pb2.ServerReflectionResponse


class Descriptors:
    """Answers reflection requests about some services."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services`: full names of those to list."""
        self._services = sorted(services)
        self._default = descriptor_pool.Default()
        self._v1 = descriptor_pool.DescriptorPool()  # of its own: a program may have that file from elsewhere
        self._v1.AddSerializedFile(_version_1())
        self._answers: Final[dict[str, Callable[[Any], Any]]] = {
            "file_by_filename": lambda name: self._files("FindFileByName", name),
            "file_containing_symbol": self._of_symbol,
            "file_containing_extension": self._of_extension,
            "all_extension_numbers_of_type": self._extensions,
            "list_services": lambda _: self._list(),
        }
        self._files = lru_cache(64)(self._find)

    def answer(self, data: bytes) -> bytes:
        """Answer a request.

        Raises:
            BadRequest: It cannot be read.
        """
        request = parse_message(data, _Request)
        asked = request.WhichOneof("message_request")
        if asked is None:
            answer = _error(StatusCode.INVALID_ARGUMENT)
        else:
            try:
                answer = _Answer()
                answer.MergeFrom(self._answers[asked](getattr(request, asked)))
            except KeyError:
                answer = _error(StatusCode.NOT_FOUND)
        answer.original_request.CopyFrom(request)
        return bytes(answer.SerializeToString())

    def _list(self) -> Any:
        services = [reflection_pb2.ServiceResponse(name=name) for name in self._services]
        return _Answer(list_services_response=reflection_pb2.ListServiceResponse(service=services))

    def _of_symbol(self, name: str) -> Any:
        try:
            return self._files("FindFileContainingSymbol", name)
        except KeyError:  # which does not know methods
            return _with_dependencies(self._default.FindMethodByName(name).containing_service.file)

    def _find(self, method: str, name: str) -> Any:
        """Find a file by a method of pools; raise KeyError when there is none."""
        try:
            found = getattr(self._default, method)(name)
        except KeyError:
            found = getattr(self._v1, method)(name)
        return _with_dependencies(found)

    def _of_extension(self, asked: Any) -> Any:
        pool = self._default
        extended = pool.FindMessageTypeByName(asked.containing_type)
        extension = pool.FindExtensionByNumber(extended, asked.extension_number)
        return _with_dependencies(pool.FindFileContainingSymbol(extension.full_name))

    def _extensions(self, name: str) -> Any:
        extended = self._default.FindMessageTypeByName(name)
        numbers = sorted(extension.number for extension in self._default.FindAllExtensions(extended))
        found = reflection_pb2.ExtensionNumberResponse(base_type_name=extended.full_name, extension_number=numbers)
        return _Answer(all_extension_numbers_response=found)


def _with_dependencies(descriptor: Any) -> Any:
    """Return a file, and all that it depends on after it."""
    files = {descriptor.name: descriptor}
    left = [descriptor]
    while left:
        for dependency in left.pop().dependencies:
            if dependency.name not in files:
                files[dependency.name] = dependency
                left.append(dependency)
    serialized = [file.serialized_pb for file in files.values()]
    return _Answer(file_descriptor_response=reflection_pb2.FileDescriptorResponse(file_descriptor_proto=serialized))


def _error(code: StatusCode) -> Any:
    text = code.name.lower().replace("_", " ")
    return _Answer(error_response=reflection_pb2.ErrorResponse(error_code=code, error_message=text))


def _version_1() -> bytes:
    """Return the file of version 1, made of that of v1alpha."""
    alpha = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    alpha.name, alpha.package = _FILE, V1.rpartition(".")[0]
    alpha.ClearField("options")  # for generated code, and that v1alpha is deprecated
    before, after = f".{ALPHA.rpartition('.')[0]}.", f".{alpha.package}."
    for message in alpha.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(before, after)
    for service in alpha.service:
        for method in service.method:
            method.input_type = method.input_type.replace(before, after)
            method.output_type = method.output_type.replace(before, after)
    return alpha.SerializeToString()
