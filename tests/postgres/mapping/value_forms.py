"""Values of many types as both ways of reading write them: pgoutput, and a cast to text.

Recorded from PostgreSQL 18; `test_mapping_server` compares them with a real server.
"""

from typing import Final, NamedTuple


class Form(NamedTuple):
    """One value of one type."""

    type: str
    literal: str
    """The value in SQL, without the quotes around it."""
    oid: int
    pgoutput: str
    cast: str
    extras: object
    """What composed extras have; None: the member is omitted."""


def same(type_: str, literal: str, oid: int, text: str, extras: object = ...) -> Form:
    return Form(type_, literal, oid, text, text, text if extras is ... else extras)


FORMS: Final = (
    same("numeric", "11.7200", 1700, "11.7200"),
    same("numeric(20,0)", "9007199254740993", 1700, "9007199254740993"),
    same("numeric", "NaN", 1700, "NaN"),
    same("int4", "7", 23, "7"),
    same("int8", "9223372036854775807", 20, "9223372036854775807"),
    same("float8", "0.1", 701, "0.1"),
    same("float4", "1e20", 700, "1e+20"),
    Form("bool", "true", 16, "t", "true", True),
    Form("bool", "false", 16, "f", "false", False),
    Form("char(5)", "ab", 1042, "ab   ", "ab", "ab"),
    same("varchar(5)", "ab ", 1043, "ab "),
    same("text", 'a "b" \\ é', 25, 'a "b" \\ é'),
    same("text", "", 25, ""),
    same("uuid", "0B8D9DF0-6C34-4A9B-8F1E-2F6F2A4C7D10", 2950, "0b8d9df0-6c34-4a9b-8f1e-2f6f2a4c7d10"),
    same("int4[]", "{0,1,1,0}", 1007, "{0,1,1,0}", ["0", "1", "1", "0"]),
    same("int4[]", "{}", 1007, "{}", []),
    same("int4[]", "[0:1]={1,2}", 1007, "[0:1]={1,2}", ["1", "2"]),
    same("int4[]", "{{1,2},{3,4}}", 1007, "{{1,2},{3,4}}", [["1", "2"], ["3", "4"]]),
    same("numeric[]", "{1.20,NULL}", 1231, "{1.20,NULL}", ["1.20", None]),
    same("bool[]", "{true,false}", 1000, "{t,f}", [True, False]),
    same("text[]", '{a,"b c","d,e","f\\"g","NULL",NULL,"h\\\\i"," j","{k}",""}', 1009,
         '{a,"b c","d,e","f\\"g","NULL",NULL,"h\\\\i"," j","{k}",""}',
         ["a", "b c", "d,e", 'f"g', "NULL", None, "h\\i", " j", "{k}", ""]),
    same("char(3)[]", "{a,bcd}", 1014, '{"a  ",bcd}', ["a", "bcd"]),
    same("jsonb[]", '{"{\\"a\\": 1.50}"}', 3807, '{"{\\"a\\": 1.50}"}', [{"a": "1.50"}]),
    same("box[]", "{(1,1),(0,0);(3,3),(2,2)}", 1020, "{(1,1),(0,0);(3,3),(2,2)}", ["(1,1),(0,0)", "(3,3),(2,2)"]),
    same("jsonb", '{"b": 1.20, "a": [true, null]}', 3802, '{"a": [true, null], "b": 1.20}',
         {"a": [True, None], "b": "1.20"}),
    same("json", '{"n": 1.20E+3,  "big": 12345678901234567890}', 114, '{"n": 1.20E+3,  "big": 12345678901234567890}',
         {"n": "1.20E+3", "big": "12345678901234567890"}),
    same("jsonb", "5.0", 3802, "5.0", "5.0"),
    same("jsonb", "null", 3802, "null", None),
    same("timestamptz", "2026-01-18 12:00:30.5+02", 1184, "2026-01-18 10:00:30.5+00"),
    same("timestamp", "2026-01-18 10:00", 1114, "2026-01-18 10:00:00"),
    same("date", "2026-01-18", 1082, "2026-01-18"),
    same("interval", "1 day 2 hours", 1186, "1 day 02:00:00"),
    same("numrange", "[1.5,2.5)", 3906, "[1.5,2.5)"),
    same("int4range[]", '{"[1,3)"}', 3905, '{"[1,3)"}', ["[1,3)"]),
    same("bytea", "\\xdeadbeef", 17, "\\xdeadbeef"),
    Form("inet", "10.0.0.1", 869, "10.0.0.1", "10.0.0.1/32", "10.0.0.1"),
    same("cidr", "10.0.0.0/8", 650, "10.0.0.0/8"),
    same("point", "(1,2)", 600, "(1,2)"),
    same("bit(3)", "101", 1560, "101"),
    same("money", "12.50", 790, "$12.50"),
)  # fmt: skip
