"""Which records a search may find: by place, time, class, and a condition in SQL.

A condition is parsed by sqlglot and translated into the few nodes below; whatever they cannot say
is refused. Every node is evaluated in two ways: on one record (`Filter.matches`, the reference)
and on whole columns (`select`). Truth is three-valued as in SQL, and NOT, AND, OR are 2 - a, the
least and the greatest of FALSE < UNKNOWN < TRUE.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.errors import MissingExtraError, UsageError
from rsir.types import Bounds, Geometry

if TYPE_CHECKING:
    from rsir.archive.store import Record

ALLOWED = (
    "a condition compares fields with literals: =, <>, <, <=, >, >=, IN (...), BETWEEN, LIKE, "
    "IS NULL, joined by AND, OR, NOT and parentheses; text stands in 'single quotes', an unusual "
    "field name in \"double quotes\"; e.g. cloud < 10 AND folder = 'Harbor'"
)

RECORD_FIELDS = ("id", "source", "content", "size", "mtime_ns", "datetime")
"""Names that mean a field of the record; any other name, and properties.NAME, is a property."""

CLASS = "class"
"""The property that `Filter.classes` asks for."""

_LONGEST = 100_000
_DEEPEST = 100
"""Characters and nesting of a condition, at most: our choice, far beyond what is written by hand
(a list of a few thousand names fits) and well within Python's recursion."""

Truth = int
FALSE, UNKNOWN, TRUE = 0, 1, 2
Truths = NDArray[np.uint8]
"""(N,) of FALSE, UNKNOWN, TRUE."""

NULL, NUMBER, TEXT, BOOLEAN, OTHER = range(5)
"""Kinds of JSON values; OTHER are arrays and objects. Only values of one kind compare."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Records that meet all that is given; the empty filter is met by every record.

    bbox: (west, south, east, north) in degrees, WGS 84, that the footprint intersects (touching
    counts); west > east reaches over the antimeridian. geometry: a GeoJSON Polygon or
    MultiPolygon in WGS 84 that the footprint intersects. A record without a footprint meets
    neither.
    start, end: of the closed interval that the datetime is in; either may be open. Without a time
    zone they are UTC. A record without a datetime is in no interval.
    classes: the property "class" is one of these texts.
    where: a condition in SQL on the record's fields (`RECORD_FIELDS`) and properties, e.g.
    "cloud < 10 AND folder = 'Harbor'". A name that a record lacks is NULL there, and so is a
    comparison of values of different kinds (a number with a text). Numbers compare as float64,
    text by code point, LIKE by case; `datetime` compares with text in ISO 8601.

    Raises UsageError for what does not make sense, with what is allowed; MissingExtraError for a
    place without shapely.
    """

    bbox: Bounds | None = None
    geometry: Geometry | None = None
    start: datetime | None = None
    end: datetime | None = None
    where: str | None = None
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _utc(self.start))
        object.__setattr__(self, "end", _utc(self.end))
        if self.start and self.end and self.start > self.end:
            raise UsageError(f"the interval starts at {self.start}, after its end at {self.end}")
        if self.bbox is not None:
            object.__setattr__(self, "bbox", _checked_bbox(self.bbox))
        if self.classes is not None:
            if isinstance(self.classes, str) or not all(isinstance(c, str) for c in self.classes):
                raise UsageError("classes is a sequence of names")
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.where is not None:
            condition(self.where)
        self.regions()

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        """Equal for equal filters."""
        times = [None if t is None else t.isoformat() for t in (self.start, self.end)]
        return json.dumps([self.bbox, self.geometry, *times, self.where, self.classes])

    def conditions(self) -> list[Node]:
        """What `where` and `classes` ask for."""
        found = [] if self.where is None else [condition(self.where)]
        if self.classes is not None:
            found.append(In(Field(CLASS, True), tuple(map(Literal, self.classes))))
        return found

    def regions(self) -> list[Any]:
        """The places that a footprint has to intersect, as shapely geometries."""
        regions = [] if self.bbox is None else [_box(self.bbox)]
        if self.geometry is not None:
            regions.append(_polygon(json.dumps(dict(self.geometry))))
        return regions

    def matches(self, record: Record) -> bool:
        """Whether one record meets the filter: the reference for `select`."""
        if self.start is not None and (record.datetime is None or record.datetime < self.start):
            return False
        if self.end is not None and (record.datetime is None or record.datetime > self.end):
            return False
        if any(node.one(record) != TRUE for node in self.conditions()):
            return False
        regions = self.regions()
        if regions and record.footprint is None:
            return False
        return all(_intersects(region, [json.dumps(record.footprint)])[0] for region in regions)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field of N records.

    kind: (N,) uint8, NULL to OTHER. number: (N,) float64, numbers, and booleans as 0 and 1; None
    if there are none. codes: (N,) int32 into `texts` (distinct, an Arrow array), -1 where there
    is no text; None if there is none at all.
    """

    kind: NDArray[np.uint8]
    number: NDArray[np.float64] | None = None
    codes: NDArray[np.int32] | None = None
    texts: Any = None

    @classmethod
    def of_texts(cls, texts: Any) -> Column:
        """Of an Arrow array of text and nulls."""
        coded = pc.dictionary_encode(texts)
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.unify_dictionaries().combine_chunks()
        codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
        kind = np.where(codes < 0, NULL, TEXT).astype(np.uint8)
        return cls(kind, None, codes, coded.dictionary)

    @classmethod
    def of_numbers(cls, numbers: NDArray[Any], known: NDArray[np.bool_] | None = None) -> Column:
        """Of numbers (N,), and where they are known (everywhere, if not given)."""
        kind = np.full(len(numbers), NUMBER, np.uint8)
        if known is not None:
            kind[~known] = NULL
        return cls(kind, numbers.astype(np.float64))


class Columns(Protocol):
    """The fields of N records, column by column."""

    def __len__(self) -> int:
        """N."""

    def field(self, field: Field) -> Column:
        """A field of the record or a property; `datetime` as microseconds since the epoch."""

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Microseconds since the epoch (N,), and where they are known."""

    def bounds(self) -> NDArray[np.float64]:
        """West, south, east, north of the footprints, (4, N); NaN where there is none."""

    def footprints(self, places: NDArray[np.int64]) -> Sequence[str]:
        """GeoJSON text of the footprints of some records, which all have one."""


def select(filter: Filter, columns: Columns) -> NDArray[np.bool_]:
    """Which of N records meet `filter`, (N,): what `Filter.matches` says of each of them."""
    chosen = np.ones(len(columns), np.bool_)
    if filter.start is not None or filter.end is not None:
        times, known = columns.times()
        chosen &= known
        if filter.start is not None:
            chosen &= times >= microseconds(filter.start)
        if filter.end is not None:
            chosen &= times <= microseconds(filter.end)
    for node in filter.conditions():
        chosen &= node.all(columns) == TRUE
    for region in filter.regions():
        chosen &= _touching(region, columns, chosen)
    return chosen


# The condition.


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the record: one of `RECORD_FIELDS`, or a property."""

    name: str
    is_property: bool

    def value(self, record: Record) -> Any:
        """None if the record lacks it."""
        if self.is_property:
            return record.properties.get(self.name)
        value = getattr(record, self.name)
        return microseconds(value) if isinstance(value, datetime) else value


@dataclass(frozen=True, slots=True)
class Literal:
    """None, a bool, a float or a str."""

    content: Any

    def value(self, _record: Record) -> Any:
        """The same for every record."""
        return self.content


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
"""By operator: for Python values and NumPy arrays, and for Arrow arrays of text."""


class Node(Protocol):
    """A condition, or a part of one."""

    def one(self, record: Record) -> Truth:
        """What it says of one record."""

    def all(self, columns: Columns) -> Truths:
        """What it says of N records, (N,)."""


@dataclass(frozen=True, slots=True)
class Compare:
    """left <operator> right."""

    name: str
    left: Operand
    right: Operand

    def one(self, record: Record) -> Truth:
        """UNKNOWN unless both are numbers, texts or booleans."""
        left, right = self.left.value(record), self.right.value(record)
        kind = kind_of(left)
        if kind != kind_of(right) or kind in (NULL, OTHER):
            return UNKNOWN
        if kind == NUMBER:
            left, right = as_float(left), as_float(right)
        return TRUE if _TESTS[self.name][0](left, right) else FALSE

    def all(self, columns: Columns) -> Truths:
        """UNKNOWN unless both are numbers, texts or booleans."""
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
                ours = left.texts.take(pa.array(left.codes[textual]))
                theirs = right.texts.take(pa.array(right.codes[textual]))
                truths[textual] = 2 * _booleans(test_texts(ours, theirs))
        return truths


@dataclass(frozen=True, slots=True)
class In:
    """operand = one OR operand = another ..."""

    operand: Operand
    items: tuple[Literal, ...]

    def one(self, record: Record) -> Truth:
        """The greatest of the comparisons; FALSE with no items."""
        return max((c.one(record) for c in self._comparisons()), default=FALSE)

    def all(self, columns: Columns) -> Truths:
        """The greatest of the comparisons; FALSE with no items."""
        truths = np.full(len(columns), FALSE, np.uint8)
        for comparison in self._comparisons():
            np.maximum(truths, comparison.all(columns), out=truths)
        return truths

    def _comparisons(self) -> list[Compare]:
        return [Compare("=", self.operand, item) for item in self.items]


@dataclass(frozen=True, slots=True)
class Like:
    """operand LIKE pattern: % is any text, _ any one character."""

    operand: Operand
    pattern: str

    def one(self, record: Record) -> Truth:
        """UNKNOWN unless the operand is a text."""
        value = self.operand.value(record)
        if not isinstance(value, str):
            return UNKNOWN
        return TRUE if re.fullmatch(self._regex(), value, re.DOTALL) else FALSE

    def all(self, columns: Columns) -> Truths:
        """UNKNOWN unless the operand is a text."""
        column = _column(self.operand, columns)
        truths = np.full(len(columns), UNKNOWN, np.uint8)
        if column.codes is not None:
            regex = rf"(?s)\A(?:{self._regex()})\z"
            by_code = 2 * _booleans(pc.match_substring_regex(column.texts, regex))
            textual = column.kind == TEXT
            truths[textual] = by_code[column.codes[textual]]
        return truths

    def _regex(self) -> str:
        wild = {"%": ".*", "_": "."}
        return "".join(wild.get(sign) or re.escape(sign) for sign in self.pattern)


@dataclass(frozen=True, slots=True)
class IsNull:
    """operand IS NULL: the record lacks it, or it is null."""

    operand: Operand

    def one(self, record: Record) -> Truth:
        """Never UNKNOWN."""
        return TRUE if self.operand.value(record) is None else FALSE

    def all(self, columns: Columns) -> Truths:
        """Never UNKNOWN."""
        null = _column(self.operand, columns).kind == NULL
        return np.where(null, TRUE, FALSE).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Not:
    """NOT node."""

    node: Node

    def one(self, record: Record) -> Truth:
        """UNKNOWN stays UNKNOWN."""
        return TRUE - self.node.one(record)

    def all(self, columns: Columns) -> Truths:
        """UNKNOWN stays UNKNOWN."""
        return np.uint8(TRUE) - self.node.all(columns)


@dataclass(frozen=True, slots=True)
class And:
    """Node AND node ..."""

    nodes: tuple[Node, ...]

    def one(self, record: Record) -> Truth:
        """The least."""
        return min(node.one(record) for node in self.nodes)

    def all(self, columns: Columns) -> Truths:
        """The least."""
        return functools.reduce(np.minimum, (node.all(columns) for node in self.nodes))


@dataclass(frozen=True, slots=True)
class Or:
    """Node OR node ..."""

    nodes: tuple[Node, ...]

    def one(self, record: Record) -> Truth:
        """The greatest."""
        return max(node.one(record) for node in self.nodes)

    def all(self, columns: Columns) -> Truths:
        """The greatest."""
        return functools.reduce(np.maximum, (node.all(columns) for node in self.nodes))


@functools.lru_cache(maxsize=256)
def condition(where: str) -> Node:
    """The condition that `where` spells; UsageError, saying what is allowed, if it is none."""
    # Heavy beside most of what imports this module, and needed for conditions only.
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if len(where) > _LONGEST:
        raise UsageError(f"the condition has {len(where)} characters; {_LONGEST} are allowed")
    try:
        parsed = sqlglot.parse_one(where, into=exp.Condition)
        return _translated(parsed, 0)
    except SqlglotError as error:
        raise UsageError(f"{where!r} is not a condition: {ALLOWED}") from error
    except RecursionError as error:
        raise UsageError("the condition is nested too deeply; write it flatter") from error


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
    if kind is exp.In and node.expressions and set(_given(node)) == {"this", "expressions"}:
        value = _operand(node.this)
        items = [_operand(item) for item in node.expressions]
        literals = [item for item in items if isinstance(item, Literal)]
        if len(literals) == len(items):
            return In(value, tuple(_fitting(item, value) for item in literals))
    if kind is exp.Like and set(_given(node)) <= {"this", "expression", "negate"}:
        pattern = node.expression
        if isinstance(pattern, exp.Literal) and pattern.is_string:
            like = Like(_operand(node.this), pattern.this)
            return Not(like) if node.args.get("negate") else like
    if kind is exp.Is and isinstance(node.expression, exp.Null):
        return IsNull(_operand(node.this))
    if kind in (exp.Column, exp.Boolean, exp.Null):
        return Compare("=", _operand(node), Literal(True))
    raise _refused(node)


def _operand(node: Any) -> Operand:
    from sqlglot import exp

    kind = type(node)
    if kind is exp.Paren:
        return _operand(node.this)
    if kind is exp.Column and set(_given(node)) <= {"this", "table"}:
        table = node.args.get("table")
        if isinstance(node.this, exp.Identifier) and (table is None or table.name == "properties"):
            name = node.this.name
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


def _given(node: Any) -> list[str]:
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
    """`side`; if it is a text beside `datetime`, the time that it spells."""
    if other != Field("datetime", False) or not isinstance(side, Literal):
        return side
    if not isinstance(side.content, str):
        return side
    try:
        time = datetime.fromisoformat(side.content)
    except ValueError as error:
        raise UsageError(
            f"{side.content!r} is no time in ISO 8601, e.g. '2024-05-01' or '2024-05-01T10:00:00Z'"
        ) from error
    return Literal(float(microseconds(time)))


# Values.


def kind_of(value: Any) -> int:
    """NULL, NUMBER, TEXT, BOOLEAN or OTHER, of a JSON value."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int | float):
        return NUMBER
    return TEXT if isinstance(value, str) else OTHER


def as_float(number: float) -> float:
    """A number as float64; an integer beyond its range is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def microseconds(time: datetime) -> int:
    """Since 1970-01-01 UTC; without a time zone it is UTC."""
    since = _in_utc(time) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


def column_of_values(values: Sequence[Any]) -> Column:
    """The column of N JSON values."""
    kind = np.array([kind_of(value) for value in values], np.uint8)
    number = np.array(
        [
            as_float(v) if k in (NUMBER, BOOLEAN) else np.nan
            for v, k in zip(values, kind, strict=True)
        ]
    )
    texts = Column.of_texts(
        pa.array([v if isinstance(v, str) else None for v in values], pa.string())
    )
    return Column(kind, number, texts.codes, texts.texts)


def _column(operand: Operand, columns: Columns) -> Column:
    if isinstance(operand, Field):
        return columns.field(operand)
    count, value = len(columns), operand.content
    kind = np.broadcast_to(np.uint8(kind_of(value)), count)
    if isinstance(value, str):
        codes = np.broadcast_to(np.int32(0), count)
        return Column(kind, None, codes, pa.array([value], pa.string()))
    number = np.nan if value is None else as_float(value)
    return Column(kind, np.broadcast_to(np.float64(number), count))


def _booleans(array: Any) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = array.to_numpy(zero_copy_only=False).astype(np.uint8)
    return values


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _utc(time: datetime | None) -> datetime | None:
    if time is not None and not isinstance(time, datetime):
        raise UsageError(f"start and end are datetimes, not {time!r}")
    return None if time is None else _in_utc(time)


# Places.


def bounds_of(geometry: Geometry | None) -> Bounds | None:
    """(west, south, east, north) of a GeoJSON geometry; None for none, or an empty one.

    Raises UsageError for what is not a geometry: another type, coordinates of another depth,
    values that are not finite, a ring that is not closed.
    """
    if geometry is None:
        return None
    positions: list[Any] = []
    try:
        _collect(geometry, positions)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{_short(geometry)} is not a GeoJSON geometry ({error}); see RFC 7946, section 3.1"
        ) from error
    if not positions:
        return None
    longitudes = [float(position[0]) for position in positions]
    latitudes = [float(position[1]) for position in positions]
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


_DEPTHS = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""How deep the coordinates of a geometry are nested."""


def _collect(geometry: Mapping[str, Any], positions: list[Any]) -> None:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            _collect(part, positions)
        return
    if kind not in _DEPTHS:
        raise ValueError(f"its type is {kind!r}")
    if kind == "Point" and not geometry["coordinates"]:
        return  # RFC 7946 section 3.1: empty
    closed = "Polygon" in kind
    fewest = 4 if closed else 2 if "Line" in kind else 0
    _walk(geometry["coordinates"], _DEPTHS[kind], closed, fewest, positions)


def _walk(values: Any, depth: int, closed: bool, fewest: int, positions: list[Any]) -> None:
    if not isinstance(values, list | tuple):
        raise TypeError("coordinates that are no array")
    if depth == 0:
        if len(values) < 2 or not all(
            kind_of(value) == NUMBER and math.isfinite(value) for value in values
        ):
            raise ValueError(f"{values!r} is no position")
        positions.append(values)
        return
    if depth == 1 and len(values) < fewest:
        raise ValueError(f"a line or ring of {len(values)} positions")
    for value in values:
        _walk(value, depth - 1, closed, fewest, positions)
    if depth == 1 and closed and list(values[0]) != list(values[-1]):
        raise ValueError("a ring that is not closed")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _checked_bbox(bbox: Sequence[float]) -> Bounds:
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a bbox is west, south, east, north in degrees, not {bbox!r}") from error
    # Written so that NaN fails them too.
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise UsageError(
            f"longitudes of a bbox are within -180 and 180, not {west}, {east}; over the "
            "antimeridian, west is greater than east"
        )
    if not (-90 <= south <= north <= 90):
        raise UsageError(f"latitudes of a bbox go up within -90 and 90, not {south} to {north}")
    return west, south, east, north


def _shapely() -> Any:
    try:
        import shapely
    except ImportError as error:
        raise MissingExtraError("a filter by place", "geo") from error
    return shapely


@functools.lru_cache(maxsize=64)
def _box(bbox: Bounds) -> Any:
    shapely = _shapely()
    west, south, east, north = bbox
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    boxes = [_upright(a, south, b, north) for a, b in spans]
    region = boxes[0] if len(boxes) == 1 else shapely.union_all(boxes)
    shapely.prepare(region)
    return region


def _upright(west: float, south: float, east: float, north: float) -> Any:
    """The box, or the line or point that it comes down to."""
    shapely = _shapely()
    if west < east and south < north:
        return shapely.box(west, south, east, north)
    if (west, south) == (east, north):
        return shapely.Point(west, south)
    return shapely.LineString([(west, south), (east, north)])


@functools.lru_cache(maxsize=64)
def _polygon(text: str) -> Any:
    shapely = _shapely()
    geometry = json.loads(text)
    if geometry.get("type") not in ("Polygon", "MultiPolygon"):
        raise UsageError(
            f"a filter's geometry is a GeoJSON Polygon or MultiPolygon, not {_short(geometry)}"
        )
    bounds = bounds_of(geometry)
    if bounds is None:
        raise UsageError("the filter's geometry is empty")
    if bounds[0] < -180 or bounds[2] > 180 or bounds[1] < -90 or bounds[3] > 90:
        raise UsageError(
            f"the filter's geometry reaches beyond WGS 84 ({bounds}); cut it at the antimeridian "
            "into a MultiPolygon (RFC 7946, section 3.1.9)"
        )
    region = shapely.from_geojson(text)
    if not shapely.is_valid(region):
        raise UsageError(f"the filter's geometry is not valid: {shapely.is_valid_reason(region)}")
    shapely.prepare(region)
    return region


def _intersects(region: Any, footprints: Sequence[str]) -> NDArray[np.bool_]:
    """Which of some footprints, GeoJSON texts, `region` intersects; a crossed one is repaired."""
    shapely = _shapely()
    shapes = shapely.from_geojson(np.array(footprints, dtype=object))
    crossed = ~shapely.is_valid(shapes)
    if crossed.any():
        shapes[crossed] = shapely.make_valid(shapes[crossed])
    found: NDArray[np.bool_] = shapely.intersects(region, shapes)
    return found


def _touching(region: Any, columns: Columns, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which footprints `region` intersects; `among`: those that are asked about, (N,).

    Most are decided by their bounds: outside the region's, or a box that lies within the region.
    """
    shapely = _shapely()
    west, south, east, north = columns.bounds()
    left, bottom, right, top = region.bounds
    # Comparisons with NaN, of those without a footprint, are false.
    near = among & (west <= right) & (east >= left) & (south <= top) & (north >= bottom)
    found = np.zeros(len(columns), np.bool_)
    if region.equals(shapely.box(left, bottom, right, top)):
        inside = (west >= left) & (east <= right) & (south >= bottom) & (north <= top)
        found |= near & inside
        rest = np.flatnonzero(near & ~inside)
    else:
        places = np.flatnonzero(near)
        boxes = shapely.box(west[places], south[places], east[places], north[places])
        # The box of a point or an upright line is no polygon: such footprints are looked at.
        proper = (west[places] < east[places]) & (south[places] < north[places])
        inside = proper & shapely.covers(region, boxes)
        found[places[inside]] = True
        rest = places[~inside & ~(proper & ~shapely.intersects(region, boxes))]
    if len(rest):
        found[rest] = _intersects(region, columns.footprints(rest))
    return found
