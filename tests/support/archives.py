"""Archives of made-up records, for the tests of export, import and merge."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from rsir.archive import Archive
from rsir.archive.folder.external import ExternalEncoder
from rsir.ranking import metric_named, packed
from rsir.store.memory import ExactStore
from rsir.store.records.record import Record

ADAPTIVE = "adaptive-hamming:3"
METRICS = ("cosine", "euclidean", "hamming", ADAPTIVE)
DIMENSION = 13

SQUARE = {"type": "Polygon", "coordinates": [[[7, 50], [8, 50], [8, 51.5], [7, 51.5], [7, 50]]]}
HOLED = {
    "type": "Polygon",
    "coordinates": [
        [[0.1, 0.2], [9.0, 0.2], [9.0, 9.3], [0.1, 9.3], [0.1, 0.2]],
        [[1.0, 1.0], [1.0, 2.0], [2.0, 2.0], [2.0, 1.0], [1.0, 1.0]],
    ],
}
ACROSS = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[179.5, -17], [180, -17], [180, -16], [179.5, -16], [179.5, -17]]],
        [[[-180, -17], [-179.25, -17], [-179.25, -16], [-180, -16], [-180, -17]]],
    ],
}
HIGH = {"type": "Point", "coordinates": [-70.1234567890123, 1e-7, 812.5]}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
awkward = st.sampled_from(['a,"b"', "new\nline", "return\rhere", "=1+1", "ünï✓", "", "\0", "'"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
    | awkward,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
longitude, latitude = st.floats(-180, 180), st.floats(-90, 90)
points = st.builds(lambda x, y: {"type": "Point", "coordinates": [x, y]}, longitude, latitude)
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), None])
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=zones)
records = st.builds(
    Record,
    id=text | awkward,
    source=text | awkward,
    content=text,
    size=st.integers(0, 2**63 - 1),
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    footprint=st.none() | st.sampled_from([SQUARE, HOLED, ACROSS, HIGH]) | points,
    datetime=st.none() | times,
    properties=st.dictionaries(text | awkward, values, max_size=3),
)
many = st.lists(records, max_size=6, unique_by=lambda r: r.id)


def vectors(metric: str, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if metric_named(metric).kind == "float":
        return rng.standard_normal((count, DIMENSION)).astype(np.float32)
    codes = np.packbits(rng.random((count, DIMENSION)) < 0.5, axis=1)
    if metric == "hamming":
        return codes
    chances = rng.random((count, 3)).astype(np.float32) + np.float32(1e-3)
    return packed(codes, chances / chances.sum(axis=1)[:, None])


def in_memory(metric: str, held: list[Record], seed: int = 0, name: str = "made up") -> Archive:
    """An archive of `held` records whose store is `ExactStore`."""
    store = ExactStore(metric, DIMENSION)
    store.add(held, vectors(metric, len(held), seed))
    fingerprint = ExternalEncoder(name, metric, DIMENSION).fingerprint
    return Archive(Path("in memory"), {"fingerprint": fingerprint, "bands": ["red"]}, store, None)


def on_disk(path: Path, metric: str, held: list[Record], seed: int = 0) -> Archive:
    archive = Archive.create(path, ExternalEncoder("made up", metric, DIMENSION))
    archive.store.add(held, vectors(metric, len(held), seed))
    return archive


def contents(archive: Archive) -> list[tuple[Record, bytes]]:
    """All records and vectors, ordered by id."""
    rows = archive.store.get([record.id for record in archive.records()])
    return [(record, vector.tobytes()) for record, vector in rows]


def contents_by_id(archive: Archive) -> dict[str, tuple[Record, bytes]]:
    """All records and vectors; fails if an id occurs twice."""
    rows = contents(archive)
    by_id = {record.id: (record, vector) for record, vector in rows}
    assert len(by_id) == len(rows)
    return by_id


def source_and_vector_by_id(archive: Archive) -> dict[str, tuple[str, str, bytes]]:
    """Source, content and vector by id: what does not depend on the time of indexing."""
    return {
        id: (record.source, record.content, vector)
        for id, (record, vector) in contents_by_id(archive).items()
    }


def chip(number: int, **more) -> Record:
    return Record(f"chip {number:05d}", f"/images/{number}.tif", f"{number:x}", **more)
