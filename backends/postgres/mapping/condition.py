"""Conditions of the options: which rows are finished, voided, or ours. Pure: text in, a test of rows and SQL out.

A condition is a list of tests joined by ``and``, with the meaning that it has in SQL: a comparison with NULL is not
true. ``status in ('finished', 'settled') and not test_round``
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from backends.postgres.identifiers import quote_literal
from backends.postgres.mapping.column_kinds import Kind
from backends.postgres.mapping.value_path import Place, ValuePath, sql_of

ALLOWED: Final = (
    "allowed are tests joined by 'and': column is null, column is not null, column = 'value', column <> 'value', "
    "column in ('a', 'b'), column not in ('a', 'b'), column, not column"
)
TRUE_TEXTS: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
"""What PostgreSQL reads as true."""
_FALSE_TEXTS: Final = frozenset({"false", "f", "no", "n", "off", "0"})

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<path>(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)(?:\.(?:"(?:[^"]|"")+"|[\w$-]+))*)"""
    r"""|(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?)|(?P<sign><>|!=|=|\(|\)|,))"""
)
_NUMBER_FORM: Final = r"[-+]?([0-9]{1,200}(\.[0-9]{0,200})?|\.[0-9]{1,200})([eE][-+]?[0-9]{1,3})?"
"""Text that is compared as a number. For Python and for PostgreSQL, whose counts end at 255."""
_NUMBER: Final = re.compile(_NUMBER_FORM)


class _Literal(NamedTuple):
    text: str
    number: Decimal | None = None  # written without quotes
    truth: bool | None = None  # written as true or false


@dataclass(frozen=True, slots=True)
class _Test:
    """One test: `path` is NULL, is true, or is one of `literals`."""

    path: ValuePath
    kind: str  # "null", "true" or "in"
    is_negated: bool = False
    literals: tuple[_Literal, ...] = ()
    of_null: bool = False  # the result for NULL: `x is not true` is true


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition as it is in the options."""

    text: str
    tests: tuple[_Test, ...]

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition; raise `ValueError` with what is allowed."""
        return cls(text, tuple(_Parser(text).tests()))

    @classmethod
    def not_null(cls, path: str) -> "Condition":
        """Make the condition that a value is not NULL."""
        return cls(f"{path} is not null", (_Test(ValuePath.parse(path), "null", is_negated=True),))

    @property
    def paths(self) -> tuple[ValuePath, ...]:
        """The values that it reads."""
        return tuple(test.path for test in self.tests)

    @property
    def is_not_null(self) -> bool:
        """Whether it only says that one value is not NULL."""
        return len(self.tests) == 1 and self.tests[0].kind == "null" and self.tests[0].is_negated

    @property
    def columns(self) -> tuple[str, ...]:
        """The first names of its paths. Only `ValuePath.place` says which columns of a table they are."""
        return tuple(dict.fromkeys(path.parts[0] for path in self.paths))

    def __str__(self) -> str:
        return self.text

    def matches(self, value_of: Callable[[ValuePath], str | None], kind_of: Callable[[ValuePath], Kind]) -> bool:
        """Whether a row is meant.

        Args:
            value_of: Returns a value of the row as text; None is NULL.
            kind_of: Returns the kind of the column; of a member of a JSON document it is text.
        """
        return all(tester(test, kind_of(test.path))(value_of(test.path)) for test in self.tests)

    def sql(self, place_of: Callable[[ValuePath], Place], kind_of: Callable[[ValuePath], Kind], alias: str) -> str:
        """Write the condition as SQL that is true or false, never NULL, and does not raise for any value of a column.

        A member of a text column that holds no JSON does raise.
        """
        kinds = [(test, kind_of(test.path)) for test in self.tests]
        return " AND ".join(_test_sql(test, sql_of(place_of(test.path), alias, kind), kind) for test, kind in kinds)


def truth_of(text: str) -> bool:
    """Whether PostgreSQL would read the text as true; every other text is false."""
    return text.strip(" ").lower() in TRUE_TEXTS


def tester(test: _Test, kind: Kind) -> Callable[[str | None], bool]:
    """Make the function that tests a value as text, for a column of this kind."""
    is_negated, of_null = test.is_negated, test.of_null
    if test.kind == "null":
        return (lambda value: value is not None) if is_negated else (lambda value: value is None)
    if test.kind == "true":
        return lambda value: of_null if value is None else truth_of(value) is not is_negated
    wanted = _Wanted.of(test.literals, kind)
    return lambda value: value is not None and wanted.has(value) is not is_negated


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The literals of a test, as a column of one kind compares them."""

    texts: frozenset[str]
    numbers: frozenset[Decimal]
    truths: frozenset[bool]
    is_padded: bool

    @classmethod
    def of(cls, literals: Sequence[_Literal], kind: Kind) -> "_Wanted":
        texts, numbers, truths = set(), set(), set()
        for literal in literals:
            text = literal.text.strip(" ").lower()
            if literal.number is not None:
                numbers.add(literal.number)
            elif literal.truth is not None:
                truths.add(literal.truth)
            elif kind is Kind.NUMBER and _NUMBER.fullmatch(literal.text):
                numbers.add(Decimal(literal.text))
            elif kind is Kind.BOOLEAN and text in TRUE_TEXTS | _FALSE_TEXTS:
                truths.add(text in TRUE_TEXTS)
            elif kind is Kind.UUID:
                texts.add(text)
            else:
                texts.add(literal.text.rstrip(" ") if kind is Kind.CHAR else literal.text)
        return cls(frozenset(texts), frozenset(numbers), frozenset(truths), kind is Kind.CHAR)

    def has(self, value: str) -> bool:
        if self.is_padded:
            value = value.rstrip(" ")
        if value in self.texts:
            return True
        if self.numbers and _NUMBER.fullmatch(value) and Decimal(value) in self.numbers:
            return True
        return bool(self.truths) and truth_of(value) in self.truths


def _test_sql(test: _Test, value: str, kind: Kind) -> str:
    if test.kind == "null":
        return f"{value} IS {'NOT ' * test.is_negated}NULL"
    if test.kind == "true":
        return _with_null(f"{'NOT ' * test.is_negated}{_truth_sql(value)}", value, of_null=test.of_null)
    wanted = _Wanted.of(test.literals, kind)
    parts = []
    if wanted.texts:
        own = f"rtrim({value}, ' ')" if wanted.is_padded else value
        parts.append(f"{own} IN ({', '.join(map(quote_literal, sorted(wanted.texts)))})")
    if wanted.numbers:
        numbers = ", ".join(f"{number:f}" for number in sorted(wanted.numbers))
        is_number = f"{value} ~ {quote_literal(f'^{_NUMBER_FORM}$')}"
        parts.append(f"CASE WHEN {is_number} THEN ({value})::numeric IN ({numbers}) ELSE FALSE END")
    parts += [f"{'NOT ' * (not truth)}{_truth_sql(value)}" for truth in sorted(wanted.truths)]
    return _with_null(f"{'NOT ' * test.is_negated}({' OR '.join(parts)})", value, of_null=False)


def _truth_sql(value: str) -> str:
    return f"lower(btrim({value})) IN ({', '.join(map(quote_literal, sorted(TRUE_TEXTS)))})"


def _with_null(sql: str, value: str, *, of_null: bool) -> str:
    return f"({value} IS NULL OR {sql})" if of_null else f"({value} IS NOT NULL AND {sql})"


class _Parser:
    """Reads the tokens of a condition from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._at = 0

    def tests(self) -> Iterator[_Test]:
        yield self._test()
        while self._at < len(self._tokens):
            if not self._takes("and"):
                raise self._fault()
            yield self._test()

    def _split(self) -> Iterator[tuple[str, str]]:
        at, end = 0, len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None or match.end() == at:
                raise ValueError(f"cannot be read at {self._text[at:].strip()[:20]!r}; {ALLOWED}")
            yield str(match.lastgroup), str(match[str(match.lastgroup)])
            at = match.end()

    def _fault(self) -> ValueError:
        if self._at >= len(self._tokens):
            return ValueError(f"ends too early; {ALLOWED}")
        return ValueError(f"cannot be read at {self._tokens[self._at][1][:20]!r}; {ALLOWED}")

    def _takes(self, word: str) -> bool:
        """Take the next token if it is this keyword or sign."""
        if self._at < len(self._tokens) and self._tokens[self._at][1].lower() == word:
            self._at += 1
            return True
        return False

    def _test(self) -> _Test:
        is_negated = self._takes("not")
        if self._at >= len(self._tokens) or self._tokens[self._at][0] != "path":
            raise self._fault()
        text = self._tokens[self._at][1]
        if text.lower() in ("and", "or", "in", "is", "null"):
            raise self._fault()
        self._at += 1
        path = ValuePath.parse(text)
        if is_negated:
            return _Test(path, "true", is_negated=True)
        if self._takes("is"):
            return self._is(path)
        if self._takes("="):
            return _Test(path, "in", literals=(self._literal(),))
        if self._takes("<>") or self._takes("!="):
            return _Test(path, "in", is_negated=True, literals=(self._literal(),))
        is_negated = self._takes("not")
        if self._takes("in"):
            return _Test(path, "in", is_negated=is_negated, literals=tuple(self._list()))
        if is_negated:
            raise self._fault()
        return _Test(path, "true")

    def _is(self, path: ValuePath) -> _Test:
        is_negated = self._takes("not")
        if self._takes("null"):
            return _Test(path, "null", is_negated=is_negated)
        if self._takes("true"):
            return _Test(path, "true", is_negated=is_negated, of_null=is_negated)
        if self._takes("false"):
            return _Test(path, "true", is_negated=not is_negated, of_null=is_negated)
        raise self._fault()

    def _list(self) -> Iterator[_Literal]:
        if not self._takes("("):
            raise self._fault()
        yield self._literal()
        while self._takes(","):
            yield self._literal()
        if not self._takes(")"):
            raise self._fault()

    def _literal(self) -> _Literal:
        if self._at >= len(self._tokens):
            raise self._fault()
        kind, text = self._tokens[self._at]
        if kind == "text":
            literal = _Literal(text[1:-1].replace("''", "'"))
        elif kind == "number":
            literal = _Literal(text, number=Decimal(text))
        elif text.lower() in ("true", "false"):
            literal = _Literal(text, truth=text.lower() == "true")
        elif text.lower() == "null":
            raise ValueError(f"compares with null, which is never true; write 'is null' or 'is not null'; {ALLOWED}")
        elif kind == "path":
            raise ValueError(f"has {text[:20]!r} where a value has to be; write {quote_literal(text[:20])}; {ALLOWED}")
        else:
            raise self._fault()
        self._at += 1
        return literal
