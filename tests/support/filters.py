"""Filters, one record at a time: the oracle for `rsir.store.filters.filter.select`."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import shapely

from rsir.store.filters.fields import Field, RecordColumns
from rsir.store.filters.filter import Filter, select
from rsir.store.filters.sql import (
    And,
    Compare,
    FootprintIsNull,
    In,
    IsNull,
    Like,
    Literal,
    Node,
    Not,
    Or,
)
from rsir.store.records.record import Record

COMPARISONS = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def selected(filter: Filter, *records: Record) -> list[bool]:
    """Whether each of `records` meets `filter`, by the product."""
    return select(filter, RecordColumns(records)).tolist()


def meets(filter: Filter, record: Record) -> bool:
    """Whether `record` meets `filter`, by the oracle."""
    times = [moment(record.properties.get(name)) for name in ("start_datetime", "end_datetime")]
    times = [record.datetime if time is None else time for time in times]
    known = [time for time in times if time is not None]
    if (filter.start or filter.end) and not known:
        return False
    if filter.start is not None and max(known) < filter.start:
        return False
    if filter.end is not None and known[0] > filter.end:
        return False
    if not all(truth(node, record) is True for node in filter.conditions()):
        return False
    return all(
        record.footprint is not None and region.intersects(shape(record.footprint))
        for region in filter.regions()
    )


def moment(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)


def truth(node: Node, record: Record) -> bool | None:
    """True, False, or None for SQL's UNKNOWN."""
    match node:
        case Compare(name, left, right):
            return compared(name, value(left, record), value(right, record))
        case In(operand, items):
            return any_of(compared("=", value(operand, record), i.content) for i in items)
        case Like(operand, pattern):
            text = value(operand, record)
            regex = re.escape(pattern).replace("%", ".*").replace("_", ".")
            found = isinstance(text, str) and re.fullmatch(regex, text, re.DOTALL)
            return bool(found) if isinstance(text, str) else None
        case IsNull(operand):
            return value(operand, record) is None
        case FootprintIsNull():
            return record.footprint is None or shape(record.footprint).is_empty
        case Not(inner):
            return negated(truth(inner, record))
        case And(nodes):
            return negated(any_of(negated(truth(part, record)) for part in nodes))
        case Or(nodes):
            return any_of(truth(part, record) for part in nodes)
    raise AssertionError(node)


def negated(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def any_of(truths: Sequence[bool | None]) -> bool | None:
    truths = list(truths)
    if True in truths:
        return True
    return None if None in truths else False


def compared(name: str, left: Any, right: Any) -> bool | None:
    """None unless both are numbers, both texts or both booleans."""
    for kind in (bool, (int, float), str):
        if isinstance(left, kind) and isinstance(right, kind):
            if kind == (int, float) and isinstance(left, bool) + isinstance(right, bool):
                return None
            numbers = kind == (int, float)
            return COMPARISONS[name](*map(as_float, (left, right)) if numbers else (left, right))
    return None


def as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def value(operand: Field | Literal, record: Record) -> Any:
    """The value of the operand in the record; None if there is none."""
    if isinstance(operand, Literal):
        return operand.content
    if operand.is_property:
        return record.properties.get(operand.name)
    found = getattr(record, operand.name)
    if not isinstance(found, datetime):
        return found
    since = found.replace(tzinfo=found.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def shape(footprint: Any) -> Any:
    return shapely.make_valid(shapely.from_geojson(json.dumps(footprint)))
