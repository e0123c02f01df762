"""Summarize the records of an archive by source."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rsir.geo.geometry import bounds_of
from rsir.store.records.record import Record
from rsir.types import Bounds

WINDOW = "window"
"""The property of a tile that holds its window of the scene."""

SUMMARY_COLUMNS = ["source", "west", "south", "east", "north", "properties"]

_WINDOW_KEY = r'[{,]\s*"window"\s*:'
"""Matches JSON that has `WINDOW` as a key, perhaps of a nested object. A string cannot match: in
a string a backslash precedes each quote."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """An indexed file or scene.

    source: path or uri. tiles: its number of records. bounds: around the footprints of the records,
    in WGS 84; footprints are cut at the antimeridian, so the bounds of a scene across it are (-180,
    south, 180, north); None without footprints. tiled: whether any record is a window of it.
    """

    source: str
    tiles: int
    bounds: Bounds | None
    tiled: bool


def summaries(records: Iterable[Record]) -> list[SourceSummary]:
    """The sources of `records`, ordered by name."""
    found: dict[str, SourceSummary] = {}
    for record in records:
        known = found.get(record.source)
        box = bounds_of(record.footprint)
        found[record.source] = SourceSummary(
            record.source,
            1 + (known.tiles if known else 0),
            _around(known.bounds if known else None, box),
            WINDOW in record.properties or (known is not None and known.tiled),
        )
    return [found[name] for name in sorted(found)]


def summaries_of_columns(batches: Iterable[Any]) -> list[SourceSummary]:
    """Like `summaries`, from record batches with `SUMMARY_COLUMNS`.

    The bounds are null without a footprint. Rows are not converted to Python objects, and memory
    holds one batch.
    """
    parts = []
    for batch in batches:
        columns = {name: batch[name] for name in SUMMARY_COLUMNS[:-1]}
        columns["tiles"] = pa.array(np.ones(len(batch), np.int64))
        columns["tiled"] = pa.array(_have_window(batch["properties"]))
        parts.append(_by_source(pa.table(columns)))
    if not parts:
        return []
    found = _by_source(pa.concat_tables(parts)).sort_by("source")
    names = ("source", "tiles", "west", "south", "east", "north", "tiled")
    return [
        SourceSummary(source, tiles, None if bounds[0] is None else tuple(bounds), tiled)
        for source, tiles, *bounds, tiled in zip(
            *(found[name].to_pylist() for name in names), strict=True
        )
    ]


def _by_source(table: Any) -> Any:
    functions = {"tiles": "sum", "tiled": "any"}
    functions |= {"west": "min", "south": "min", "east": "max", "north": "max"}
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


def _around(first: Bounds | None, second: Bounds | None) -> Bounds | None:
    """The box around two boxes in degrees."""
    if first is None or second is None:
        return first or second
    wests, souths, easts, norths = zip(first, second, strict=True)
    return min(wests), min(souths), max(easts), max(norths)


def bytes_of(folder: Path) -> int:
    """The total bytes of the files in a folder; others may add and delete files meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total
