"""Requests as JSON: what protobuf reads is read, and everything else refused in one sentence."""

import json
from typing import Any, Final

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import BadRequest
from relay.rpc.connect.json_request import from_json
from rounds import datastream_pb2 as pb

TIME: Final = "an RFC 3339 time with a zone, as a string such as 2026-01-18T10:00:00Z"
HEARTBEAT: Final = "a whole number from 1 to 60"
SPEED: Final = "a number from 0.01 to 10000"
STRING: Final = "a string of Unicode characters"

WRONG: Final = [
    ('{"start":{"heartbeat_s":-1}}', f"heartbeat_s -1 is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":1.5}}', f"heartbeat_s 1.5 is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":"x"}}', f'heartbeat_s "x" is not {HEARTBEAT}'),
    ('{"start":{"heartbeat_s":""}}', f'heartbeat_s "" is not {HEARTBEAT}'),
    ('{"start":{"heartbeat_s":true}}', f"heartbeat_s true is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":[1]}}', f"heartbeat_s [1] is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":{}}}', f"heartbeat_s {{}} is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":4294967296}}', f"heartbeat_s 4294967296 is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":1e400}}', f"heartbeat_s Infinity is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":NaN}}', f"heartbeat_s NaN is not {HEARTBEAT}"),
    ('{"start":{"heartbeat_s":"NaN"}}', f'heartbeat_s "NaN" is not {HEARTBEAT}'),
    ('{"start":{"heartbeatS":-1}}', f"heartbeatS -1 is not {HEARTBEAT}"),
    ('{"start":{"last":-1}}', "last -1 is not a whole number from 1 to 10000"),
    ('{"start":{"speed":"fast"}}', f'speed "fast" is not {SPEED}'),
    ('{"start":{"speed":true}}', f"speed true is not {SPEED}"),
    ('{"start":{"speed":[]}}', f"speed [] is not {SPEED}"),
    ('{"start":{"speed":NaN}}', f"speed NaN is not {SPEED}"),
    ('{"start":{"speed":-Infinity}}', f"speed -Infinity is not {SPEED}"),
    (f'{{"start":{{"speed":1{"0" * 400}}}}}', f"speed 1{'0' * 39}... is not {SPEED}"),
    ('{"start":{"allow_gap":"true"}}', 'allow_gap "true" is not true or false'),
    ('{"start":{"allow_gap":1}}', "allow_gap 1 is not true or false"),
    ('{"start":{"from_time":1}}', f"from_time 1 is not {TIME}"),
    ('{"start":{"from_time":true}}', f"from_time true is not {TIME}"),
    ('{"start":{"from_time":{"seconds":1}}}', f'from_time {{"seconds": 1}} is not {TIME}'),
    ('{"start":{"to_time":"yesterday"}}', f'to_time "yesterday" is not {TIME}'),
    ('{"start":{"to_time":"2026-01-18"}}', f'to_time "2026-01-18" is not {TIME}'),
    ('{"start":{"to_time":"2026-01-18T10:00:00"}}', f'to_time "2026-01-18T10:00:00" is not {TIME}'),
    ('{"start":{"to_time":"2026-13-18T10:00:00Z"}}', f'to_time "2026-13-18T10:00:00Z" is not {TIME}'),
    ('{"start":{"to_time":"2026-01-18T10:00:00+99:00"}}', f'to_time "2026-01-18T10:00:00+99:00" is not {TIME}'),
    ('{"after":1}', f"after 1 is not {STRING}"),
    ('{"after":{}}', f"after {{}} is not {STRING}"),
    ('{"after":"\\ud800"}', f'after "\\ud800" is not {STRING}'),
    ('{"game_slugs":"dice"}', 'game_slugs "dice" is not a list of strings'),
    ('{"game_slugs":{"a":1}}', 'game_slugs {"a": 1} is not a list of strings'),
    ('{"game_slugs":["dice",7]}', f"game_slugs[1] 7 is not {STRING}"),
    ('{"game_slugs":[null]}', f"game_slugs[0] null is not {STRING}"),
    (f'{{"game_slugs":["a"{",1" * 1000}]}}', "game_slugs has 1001 elements; 1000 is the limit"),
    ('{"filter":7}', "filter 7 is not a Filter, which is a JSON object, such as {}"),
    ('{"filter":{"min_point":"a"}}', 'min_point "a" is not a number'),
    ('{"filter":{"minPoint":false}}', "minPoint false is not a number"),
    ('{"filter":{"minPoint":1,"min_point":1}}', "min_point is given twice, also as minPoint"),
    ('{"start":{"fromTime":null,"from_time":null}}', "from_time is given twice, also as fromTime"),
    ('{"after":"a","after":"a"}', '"after" is given twice'),
    ('{"filter":{"colors":"red"}}', 'colors "red" is not a list of strings'),
    ('{"filter":{"point":1}}', '"point" is no field of a Filter; its fields: min_point, max_point, colors, trends'),
    (
        '{"game":"dice"}',
        '"game" is no field of a StreamAllRequest; its fields: filter, after, start, game_slugs, corrections',
    ),
    (
        '{"\\ud800":1}',
        '"\\ud800" is no field of a StreamAllRequest; its fields: filter, after, start, game_slugs, corrections',
    ),
    ("[]", "the request [] is not a StreamAllRequest, which is a JSON object, such as {}"),
    ("null", "the request null is not a StreamAllRequest, which is a JSON object, such as {}"),
    ("{", "the request is not JSON: expecting property name enclosed in double quotes at line 1, column 2"),
    ('{"after":"\n"}', "the request is not JSON: invalid control character at line 1, column 11"),
    ('{"x":' * 3000, "the request is nested too deeply"),
    ('{"after":' + "1" * 5000 + "}", "the request has a number with too many digits"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG, ids=[text[:40] for text, _ in WRONG])
def test_wrong_request_gets_one_sentence(text: str, sentence: str) -> None:
    """With the field as the client wrote it, its value, and what is allowed."""
    with pytest.raises(BadRequest) as refusal:
        from_json(text.encode(), pb.StreamAllRequest)

    assert str(refusal.value) == sentence


def test_request_without_fields_says_so() -> None:
    """And bytes that are not text are no JSON."""
    with pytest.raises(BadRequest, match=r'^"limit" is no field of a ListGamesRequest; its fields: none$'):
        from_json(b'{"limit":1}', pb.ListGamesRequest)
    for data in (b"\xff", '{"after":"a"}'.encode("utf-16")):
        with pytest.raises(BadRequest, match=r"^the request is not JSON: it is not UTF-8$"):
            from_json(data, pb.StreamAllRequest)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("", pb.StreamAllRequest()),
        ("\ufeff{}", pb.StreamAllRequest()),
        ('{"start":{"heartbeat_s":"5"}}', pb.StreamAllRequest(start=pb.Start(heartbeat_s=5))),
        ('{"start":{"heartbeatS":5.0}}', pb.StreamAllRequest(start=pb.Start(heartbeat_s=5))),
        ('{"start":{"last":1e3}}', pb.StreamAllRequest(start=pb.Start(last=1000))),
        ('{"start":{"speed":"2.5","after":null}}', pb.StreamAllRequest(start=pb.Start(speed=2.5))),
        ('{"start":null,"game_slugs":[]}', pb.StreamAllRequest()),
        ('{"filter":{"minPoint":"1"}}', pb.StreamAllRequest(filter=pb.Filter(min_point=1))),
    ],
)
def test_all_forms_of_protobuf_are_read(text: str, request_: Message) -> None:
    """Numbers as text, names in either form, null for a field that is not set."""
    assert from_json(text.encode(), pb.StreamAllRequest) == request_


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1", "NaN", "5.0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
members = st.dictionaries(
    st.sampled_from(["after", "game_slugs", "gameSlugs", "start", "filter", "nope"])
    | st.sampled_from(["heartbeat_s", "fromTime", "min_point", "colors"]),
    values,
    max_size=3,
)
requests = st.builds(
    lambda top, start, filter_: top | {"start": start, "filter": filter_}, members, members | values, members | values
)


@given(requests)
def test_any_request_is_read_as_by_protobuf_or_refused_in_our_words(request: dict[str, Any]) -> None:
    """No error of Python, and no text of protobuf, reaches the client."""
    text = json.dumps(request)
    try:
        message = from_json(text.encode(), pb.StreamAllRequest)
    except BadRequest as refusal:
        sentence = str(refusal)
        assert not any(word in sentence for word in ("Failed", "Error", "parse", "object is", "argument", "literal"))
        assert " as JSON" not in sentence, "which member is wrong"
    else:
        assert message == json_format.Parse(text, pb.StreamAllRequest())
