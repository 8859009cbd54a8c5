"""Read a request from protobuf's JSON, and say in one sentence which of its members is wrong. Pure.

protobuf's own errors have names of Python, and nothing of what is allowed. https://protobuf.dev/programming-guides/json
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from relay.errors import BadRequest
from relay.history.query import MAX_LIMIT
from relay.history.start import MAX_LAST, MAX_SPEED, MIN_SPEED
from relay.rpc.convert import MAX_HEARTBEAT_S

_LIST_ELEMENTS: Final = 1000
"""The longest list in a request; no valid request has more, and each element takes 2 us."""
_SHOWN: Final = 40
"""Characters of a value in an error."""
_TIMESTAMP: Final = "google.protobuf.Timestamp"
_ZONE: Final = re.compile(r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)\Z", re.ASCII)
_UNREADABLE: Final = (json_format.ParseError, ValueError, TypeError, ArithmeticError, SystemError)
"""What protobuf raises for values of wrong types, out of range, and for text that is not Unicode."""

_ALLOWED: Final = {
    "heartbeat_s": f"a whole number from 1 to {MAX_HEARTBEAT_S}",
    "last": f"a whole number from 1 to {MAX_LAST}",
    "limit": f"a whole number from 1 to {MAX_LIMIT}",
    "speed": f"a number from {MIN_SPEED:g} to {MAX_SPEED:g}",
}
"""Of fields with bounds of their own. `relay.rpc.convert` and `relay.rpc.methods` check them, in all encodings."""
_OF_TYPE: Final = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_STRING: "a string of Unicode characters",
    FieldDescriptor.CPPTYPE_UINT32: f"a whole number from 0 to {2**32 - 1}",
}


def from_json(data: bytes, kind: type[Message]) -> Message:
    """Read a message; raise `BadRequest` when it is malformed."""
    value = _json(data) if data else {}
    _check(value, kind.DESCRIPTOR, "the request")
    message = kind()
    try:
        return json_format.ParseDict(value, message)
    except _UNREADABLE as error:
        raise BadRequest(_fault(value, kind) or f"the request is no {kind.DESCRIPTOR.name} as JSON") from error


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_members)
    except UnicodeDecodeError as error:
        raise BadRequest("the request is not JSON: it is not UTF-8") from error
    except json.JSONDecodeError as error:
        reason = (error.msg[:1].lower() + error.msg[1:]).removesuffix(" at")
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"the request is not JSON: {reason} at {where}") from error
    except RecursionError as error:
        raise BadRequest("the request is nested too deeply") from error
    except ValueError as error:  # by Python's limit
        raise BadRequest("the request has a number with too many digits") from error


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadRequest(f"{_shown(next(name for name in members if names.count(name) > 1))} is given twice")
    return members


@cache
def _fields(kind: Any) -> Mapping[str, FieldDescriptor]:
    """Return the fields of a message by both of their names: that of the schema, and that of JSON."""
    return {name: field for field in kind.fields for name in (field.name, field.json_name)}


def _check(value: object, kind: Any, name: str) -> None:
    """Check what protobuf does not: it reads ``[]`` as an empty message, and lists of any length."""
    if not isinstance(value, dict):
        raise BadRequest(f"{name} {_shown(value)} is not a {kind.name}, which is a JSON object, such as {{}}")
    fields, found = _fields(kind), set()
    for member, element in value.items():
        field = fields.get(member)
        if field is None:
            known = ", ".join(each.name for each in kind.fields)
            raise BadRequest(f"{_shown(member)} is no field of a {kind.name}; its fields: {known or 'none'}")
        if field.name in found:
            raise BadRequest(f"{field.name} is given twice, also as {field.json_name}")
        found.add(field.name)
        if isinstance(element, list) and len(element) > _LIST_ELEMENTS:
            raise BadRequest(f"{member} has {len(element)} elements; {_LIST_ELEMENTS} is the limit")
        if _is_message(field) and element is not None:
            _check(element, field.message_type, member)
        elif _is_misread(field, element):
            raise BadRequest(_sentence(field, member, element))


def _is_misread(field: FieldDescriptor, value: object) -> bool:
    """Whether protobuf reads a value that it should refuse: ``true`` as 1, and zones such as +99:00."""
    if field.message_type is not None:
        return isinstance(value, str) and not _ZONE.search(value)
    return isinstance(value, bool) and field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name != _TIMESTAMP


def _fault(value: Mapping[str, Any], kind: type[Message]) -> str | None:
    """Return a sentence on the first member that protobuf does not read; None when there is none."""
    for member, element in value.items():
        field = _fields(kind.DESCRIPTOR)[member]
        if _is_readable(kind, member, element):
            continue
        if _is_message(field):
            inner: Any = field.message_type
            return _fault(element, message_factory.GetMessageClass(inner))
        if not field.is_repeated:
            return _sentence(field, member, element)
        if not isinstance(element, list):
            return f"{member} {_shown(element)} is not a list of strings"
        for index, each in enumerate(element):
            if not _is_readable(kind, member, [each]):
                return _sentence(field, f"{member}[{index}]", each)
    return None


def _is_readable(kind: type[Message], member: str, element: object) -> bool:
    try:
        json_format.ParseDict({member: element}, kind())
    except _UNREADABLE:
        return False
    return True


def _sentence(field: FieldDescriptor, name: str, value: object) -> str:
    if field.message_type is not None:
        allowed = "an RFC 3339 time with a zone, as a string such as 2026-01-18T10:00:00Z"
    else:
        allowed = _ALLOWED.get(field.name) or _OF_TYPE[field.cpp_type]
    return f"{name} {_shown(value)} is not {allowed}"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
