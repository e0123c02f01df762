"""Summarize the records of an archive by source."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.errors import UsageError
from rsir.geo.geometry import part_boxes
from rsir.store.records.record import Record
from rsir.types import Bounds

WINDOW = "window"
"""The property of a tile that holds its window of the scene."""

SUMMARY_COLUMNS = ["source", "west", "south", "east", "north", "properties", "footprint"]

_HALVES = ("left_of_east", "right_of_west")
"""Of the parts whose middle is in the eastern half of the globe, the western end; of those in the
western half, the eastern end. Between them is the gap of a source that crosses the antimeridian."""

_WINDOW_KEY = r'[{,]\s*"window"\s*:'
"""Matches JSON that has `WINDOW` as a key, perhaps of a nested object. A string cannot match: in
a string a backslash precedes each quote."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """An indexed file or scene.

    source: path or uri. tiles: its number of records. bounds: around the footprints of the records,
    in WGS 84; west > east if they cross the antimeridian (RFC 7946, section 5.2); None without
    footprints. tiled: whether any record is a window of it.
    """

    source: str
    tiles: int
    bounds: Bounds | None
    tiled: bool


def summaries(records: Iterable[Record]) -> list[SourceSummary]:
    """The sources of `records`, ordered by name."""
    tiles: Counter[str] = Counter()
    tiled: set[str] = set()
    boxes: defaultdict[str, list[Bounds]] = defaultdict(list)
    for record in records:
        tiles[record.source] += 1
        boxes[record.source] += part_boxes(record.footprint)
        if WINDOW in record.properties:
            tiled.add(record.source)
    return [
        SourceSummary(name, tiles[name], _around(boxes[name]), name in tiled)
        for name in sorted(tiles)
    ]


def summaries_of_columns(batches: Iterable[Any]) -> list[SourceSummary]:
    """Like `summaries`, from record batches with `SUMMARY_COLUMNS`.

    The bounds are null without a footprint. Rows are not converted to Python objects, and memory
    holds one batch.
    """
    parts = []
    for batch in batches:
        columns = {name: batch[name] for name in SUMMARY_COLUMNS[:-1]}
        columns |= _halves(batch)
        columns["tiles"] = pa.array(np.ones(len(batch), np.int64))
        columns["tiled"] = pa.array(_have_window(batch["properties"]))
        parts.append(_by_source(pa.table(columns)))
    if not parts:
        return []
    found = _by_source(pa.concat_tables(parts)).sort_by("source")
    sides = ("west", "south", "east", "north", *_HALVES)
    return [
        SourceSummary(row["source"], row["tiles"], _box(*map(row.get, sides)), row["tiled"])
        for row in found.to_pylist()
    ]


def _by_source(table: Any) -> Any:
    functions = {"tiles": "sum", "tiled": "any"}
    functions |= {"west": "min", "south": "min", "east": "max", "north": "max"}
    functions |= {"left_of_east": "min", "right_of_west": "max"}
    found = table.group_by("source").aggregate(list(functions.items()))
    names = ["source", *(f"{name}_{function}" for name, function in functions.items())]
    return found.select(names).rename_columns(["source", *functions])


def _have_window(properties: Any) -> NDArray[np.bool_]:
    """Which of N JSON objects, as texts, have the property `WINDOW`, (N,)."""
    have: NDArray[np.bool_] = pc.match_substring_regex(properties, _WINDOW_KEY).to_numpy(
        zero_copy_only=False
    )
    nested = pc.count_substring(properties, "{").to_numpy(zero_copy_only=False) > 1
    have = have.copy()
    for row in np.flatnonzero(have & nested).tolist():
        have[row] = WINDOW in json.loads(properties[row].as_py())
    return have


def _halves(batch: Any) -> dict[str, Any]:
    """The columns `_HALVES` of a batch; null where no part of the row lies in that half."""
    west, east = (batch[name].to_numpy(zero_copy_only=False) for name in ("west", "east"))
    eastern = west + east >= 0  # by its middle; NaN, without a footprint, is in neither
    left, right = np.where(eastern, west, np.nan), np.where(west + east < 0, east, np.nan)
    # The columns say (-180, 180) of what is cut at the antimeridian; only its parts tell more.
    for row in np.flatnonzero((west == -180) & (east == 180)).tolist():
        try:
            boxes = part_boxes(json.loads(batch["footprint"][row].as_py()))
        except (TypeError, ValueError, RecursionError, UsageError):
            continue  # a table of somebody else may hold anything
        left[row] = min((w for w, _, e, _ in boxes if w + e >= 0), default=np.nan)
        right[row] = max((e for w, _, e, _ in boxes if w + e < 0), default=np.nan)
    return {
        name: pa.array(values, from_pandas=True)
        for name, values in zip(_HALVES, (left, right), strict=True)
    }


def _around(boxes: list[Bounds]) -> Bounds | None:
    """The bounds of a source, from the boxes of the parts of its footprints."""
    if not boxes:
        return None
    wests, souths, easts, norths = zip(*boxes, strict=True)
    left = min((w for w, _, e, _ in boxes if w + e >= 0), default=None)
    right = max((e for w, _, e, _ in boxes if w + e < 0), default=None)
    return _box(min(wests), min(souths), max(easts), max(norths), left, right)


def _box(
    west: float | None, south: float, east: float, north: float,
    left: float | None, right: float | None,
) -> Bounds | None:  # fmt: skip
    """The bounds of a source; None without footprints.

    left: where the part of the eastern half begins. right: where that of the western half ends.
    """
    if west is None:
        return None
    if (west, east) == (-180, 180) and left is not None and right is not None and right < left:
        west, east = left, right
    return west, south, east, north


def bytes_of(folder: Path) -> int:
    """The total bytes of the files in a folder; others may add and delete files meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total
