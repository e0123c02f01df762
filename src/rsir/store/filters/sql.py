"""Conditions in a small part of SQL: parsed, and evaluated on whole columns.

sqlglot parses a condition; `condition` translates it into the node classes below, and refuses
everything that they cannot express. A node is evaluated on the columns of N records. Truth is
three-valued as in SQL: NOT a is 2 - a, AND is the minimum and OR the maximum of
FALSE < UNKNOWN < TRUE.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.store.filters.fields import (
    BOOLEAN,
    NULL,
    NUMBER,
    RECORD_FIELDS,
    TEXT,
    Field,
    FieldColumn,
    FieldColumns,
    as_float,
    kind_of,
    microseconds,
)
from rsir.types import is_unicode

ALLOWED = (
    "a condition compares fields with literals: =, <>, <, <=, >, >=, IN (...), BETWEEN, LIKE, "
    "IS NULL, joined by AND, OR, NOT and parentheses; write text in 'single quotes', an unusual "
    "field name in \"double quotes\"; e.g. cloud < 10 AND folder = 'Harbor'"
)

FOOTPRINT = "footprint"
NO_FIELDS = {
    FOOTPRINT: "compared by a bbox or a polygon; a condition can only test footprint IS NULL",
    "geometry": "the name in a hit; a condition calls it footprint",
    "score": "of a hit and not of a record",
    "distance": "of a hit and not of a record",
}
"""Names that hits show and records lack. A condition on such a name would find no property."""

_LONGEST = 100_000
_DEEPEST = 100
"""Maximum characters and nesting of a condition. Our choice: far beyond what people write by hand
(a list of a few thousand names fits) and well within Python's recursion limit."""

FALSE, UNKNOWN, TRUE = 0, 1, 2
Truths = NDArray[np.uint8]
"""(N,) FALSE, UNKNOWN or TRUE."""


@dataclass(frozen=True, slots=True)
class Literal:
    """None, a bool, a float or a str."""

    content: Any

    def __post_init__(self) -> None:
        if isinstance(self.content, str):
            _check_unicode(self.content)


Operand = Field | Literal
_Test = Callable[[Any, Any], Any]
_TESTS: dict[str, tuple[_Test, _Test]] = {
    "=": (operator.eq, pc.equal),
    "<>": (operator.ne, pc.not_equal),
    "<": (operator.lt, pc.less),
    "<=": (operator.le, pc.less_equal),
    ">": (operator.gt, pc.greater),
    ">=": (operator.ge, pc.greater_equal),
}
"""For each operator, the function for NumPy arrays and the one for Arrow arrays of text."""


class Node(Protocol):
    """A condition, or a part of it."""

    def evaluate(self, columns: FieldColumns) -> Truths:
        """Its truth for each of N records, (N,)."""


@dataclass(frozen=True, slots=True)
class Compare:
    """left <operator> right."""

    name: str
    left: Operand
    right: Operand

    def evaluate(self, columns: FieldColumns) -> Truths:
        """UNKNOWN unless both sides are numbers, both texts or both booleans."""
        left, right = (_column(side, columns) for side in (self.left, self.right))
        truths = np.full(len(columns), UNKNOWN, np.uint8)
        test, test_texts = _TESTS[self.name]
        same = left.kind == right.kind
        if left.number is not None and right.number is not None:
            numeric = same & ((left.kind == NUMBER) | (left.kind == BOOLEAN))
            truths[numeric] = 2 * test(left.number, right.number)[numeric]
        if left.codes is not None and right.codes is not None:
            textual = same & (left.kind == TEXT)
            if isinstance(self.right, Literal):  # each distinct text is compared once
                by_code = 2 * _booleans(test_texts(left.texts, self.right.content))
                truths[textual] = by_code[left.codes[textual]]
            elif textual.any():
                left_texts = left.texts.take(pa.array(left.codes[textual]))
                right_texts = right.texts.take(pa.array(right.codes[textual]))
                truths[textual] = 2 * _booleans(test_texts(left_texts, right_texts))
        return truths


@dataclass(frozen=True, slots=True)
class In:
    """operand = items[0] OR operand = items[1] ..."""

    operand: Operand
    items: tuple[Literal, ...]

    def evaluate(self, columns: FieldColumns) -> Truths:
        """FALSE with no items."""
        truths = np.full(len(columns), FALSE, np.uint8)
        for item in self.items:
            equal = Compare("=", self.operand, item).evaluate(columns)
            np.maximum(truths, equal, out=truths)
        return truths


@dataclass(frozen=True, slots=True)
class Like:
    """operand LIKE pattern: % matches any text, _ any single character."""

    operand: Operand
    pattern: str

    def evaluate(self, columns: FieldColumns) -> Truths:
        """UNKNOWN unless the operand is a text."""
        column = _column(self.operand, columns)
        truths = np.full(len(columns), UNKNOWN, np.uint8)
        if column.codes is not None:
            wildcards = {"%": ".*", "_": "."}
            body = "".join(wildcards.get(sign) or re.escape(sign) for sign in self.pattern)
            regex = rf"(?s)\A(?:{body})\z"
            by_code = 2 * _booleans(pc.match_substring_regex(column.texts, regex))
            textual = column.kind == TEXT
            truths[textual] = by_code[column.codes[textual]]
        return truths


@dataclass(frozen=True, slots=True)
class IsNull:
    """operand IS NULL: the record lacks the value, or the value is null."""

    operand: Operand

    def evaluate(self, columns: FieldColumns) -> Truths:
        """Never UNKNOWN."""
        null = _column(self.operand, columns).kind == NULL
        return np.where(null, TRUE, FALSE).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class FootprintIsNull:
    """Footprint IS NULL: the record has no footprint, or an empty one."""

    def evaluate(self, columns: FieldColumns) -> Truths:
        """Never UNKNOWN."""
        return np.where(np.isnan(columns.bounds()[0]), TRUE, FALSE).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Not:
    """NOT node."""

    node: Node

    def evaluate(self, columns: FieldColumns) -> Truths:
        """UNKNOWN stays UNKNOWN."""
        return np.uint8(TRUE) - self.node.evaluate(columns)


@dataclass(frozen=True, slots=True)
class And:
    """Node AND node ..."""

    nodes: tuple[Node, ...]

    def evaluate(self, columns: FieldColumns) -> Truths:
        """The minimum."""
        return functools.reduce(np.minimum, (node.evaluate(columns) for node in self.nodes))


@dataclass(frozen=True, slots=True)
class Or:
    """Node OR node ..."""

    nodes: tuple[Node, ...]

    def evaluate(self, columns: FieldColumns) -> Truths:
        """The maximum."""
        return functools.reduce(np.maximum, (node.evaluate(columns) for node in self.nodes))


@functools.lru_cache(maxsize=256)
def condition(where: str) -> Node:
    """The condition written in `where`; UsageError, with what is allowed, for anything else."""
    # Imported here because sqlglot is slow to import and most callers have no condition.
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if len(where) > _LONGEST:
        raise UsageError(f"the condition has {len(where)} characters; {_LONGEST} are allowed")
    _check_unicode(where)
    try:
        parsed = sqlglot.parse_one(where, into=exp.Condition)
        return _translated(parsed, 0)
    except SqlglotError as error:
        raise UsageError(f"{where!r} is not a condition: {ALLOWED}") from error
    except RecursionError as error:
        raise UsageError("the condition is nested too deeply; write it flatter") from error


def properties_in(part: object) -> set[str]:
    """The names of the properties that a condition compares."""
    if isinstance(part, Field):
        return {part.name} if part.is_property else set()
    if is_dataclass(part):
        part = tuple(getattr(part, field.name) for field in fields(part))
    return set().union(*map(properties_in, part)) if isinstance(part, tuple) else set()


def _translated(node: Any, depth: int) -> Node:
    from sqlglot import exp

    if depth > _DEEPEST:
        raise UsageError(f"the condition is nested more than {_DEEPEST} deep; write it flatter")
    comparisons = {
        exp.EQ: "=",
        exp.NEQ: "<>",
        exp.LT: "<",
        exp.LTE: "<=",
        exp.GT: ">",
        exp.GTE: ">=",
    }
    kind = type(node)
    if kind in (exp.And, exp.Or):
        parts = tuple(_translated(part, depth + 1) for part in node.flatten(unnest=False))
        return And(parts) if kind is exp.And else Or(parts)
    if kind in (exp.Not, exp.Paren):
        inner = _translated(node.this, depth + 1)
        return Not(inner) if kind is exp.Not else inner
    if kind in comparisons:
        return _comparison(comparisons[kind], _operand(node.this), _operand(node.expression))
    if kind is exp.Between and not node.args.get("symmetric"):
        value, low, high = (_operand(node.args[name]) for name in ("this", "low", "high"))
        return And((_comparison(">=", value, low), _comparison("<=", value, high)))
    if kind is exp.In and node.expressions and set(_arguments(node)) == {"this", "expressions"}:
        value = _operand(node.this)
        items = [_operand(item) for item in node.expressions]
        literals = [item for item in items if isinstance(item, Literal)]
        if len(literals) == len(items):
            return In(value, tuple(_fitting(item, value) for item in literals))
    if kind is exp.Like and set(_arguments(node)) <= {"this", "expression", "negate"}:
        pattern = node.expression
        if isinstance(pattern, exp.Literal) and pattern.is_string:
            like = Like(_operand(node.this), pattern.this)
            return Not(like) if node.args.get("negate") else like
    if kind is exp.Is and isinstance(node.expression, exp.Null):
        column = node.this
        if type(column) is exp.Column and column.name == FOOTPRINT and not column.args.get("table"):
            return FootprintIsNull()
        return IsNull(_operand(node.this))
    if kind in (exp.Column, exp.Boolean, exp.Null):
        return Compare("=", _operand(node), Literal(True))
    raise _refused(node)


def _operand(node: Any) -> Operand:
    from sqlglot import exp

    kind = type(node)
    if kind is exp.Paren:
        return _operand(node.this)
    if kind is exp.Column and set(_arguments(node)) <= {"this", "table"}:
        table = node.args.get("table")
        if isinstance(node.this, exp.Identifier) and (table is None or table.name == "properties"):
            name = node.this.name
            if table is None and name in NO_FIELDS:
                raise UsageError(
                    f"{name} is {NO_FIELDS[name]}; a property of that name is properties.{name}"
                )
            return Field(name, table is not None or name not in RECORD_FIELDS)
    if kind is exp.Literal:
        return Literal(node.this if node.is_string else float(node.this))
    if kind is exp.Neg and type(node.this) is exp.Literal and not node.this.is_string:
        return Literal(-float(node.this.this))
    if kind is exp.Boolean:
        return Literal(bool(node.this))
    if kind is exp.Null:
        return Literal(None)
    raise _refused(node)


def _arguments(node: Any) -> list[str]:
    return [name for name, value in node.args.items() if value not in (None, False, [])]


def _refused(node: Any) -> UsageError:
    return UsageError(f"{node.sql()!r} is not allowed: {ALLOWED}")


def _comparison(name: str, left: Operand, right: Operand) -> Node:
    return Compare(name, _fitting(left, right), _fitting(right, left))


@overload
def _fitting(side: Literal, other: Operand) -> Literal: ...
@overload
def _fitting(side: Operand, other: Operand) -> Operand: ...
def _fitting(side: Operand, other: Operand) -> Operand:
    """`side`; a text compared with `datetime` becomes a time."""
    if other != Field("datetime", False) or not isinstance(side, Literal):
        return side
    if not isinstance(side.content, str):
        return side
    try:
        return Literal(float(microseconds(datetime.fromisoformat(side.content))))
    except ValueError as error:
        raise UsageError(
            f"{side.content!r} is no time in ISO 8601, e.g. '2024-05-01' or '2024-05-01T10:00:00Z'"
        ) from error
    except OverflowError as error:
        raise UsageError(f"{side.content!r} is, in UTC, not in the years 1 to 9999") from error


def _check_unicode(text: str) -> None:
    if not is_unicode(text):
        raise UsageError(f"{text!a} is not valid Unicode, and no record has such text")


def sql_text(text: str) -> str:
    """`text` as a literal of SQL: a quote is doubled, nothing else is special."""
    return "'" + text.replace("'", "''") + "'"


def one_of(field: str, texts: Iterable[str]) -> str:
    """The condition in SQL that `field` is one of `texts`."""
    return f"{field} IN ({', '.join(map(sql_text, texts))})"


def sql_property(name: str) -> str:
    """The property `name` as a field in SQL, quoted, because the name may be unusual."""
    return 'properties."' + name.replace('"', '""') + '"'


def _column(operand: Operand, columns: FieldColumns) -> FieldColumn:
    if isinstance(operand, Field):
        return columns.field(operand)
    count, value = len(columns), operand.content
    kind = np.broadcast_to(np.uint8(kind_of(value)), count)
    if isinstance(value, str):
        codes = np.broadcast_to(np.int32(0), count)
        return FieldColumn(kind, None, codes, pa.array([value], pa.string()))
    number = np.nan if value is None else as_float(value)
    return FieldColumn(kind, np.broadcast_to(np.float64(number), count))


def _booleans(array: Any) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = array.to_numpy(zero_copy_only=False).astype(np.uint8)
    return values
