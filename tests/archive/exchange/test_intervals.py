"""A STAC item with an interval, from the index over a search to the export."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from rsir.archive import Archive
from rsir.archive.exchange.export import export
from rsir.store.filters.filter import Filter
from tests.support.colour_encoder import ColourEncoder

START, END = "2024-04-01T00:00:00Z", "2024-06-30T00:00:00Z"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Of one mosaic of a quarter of a year."""
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=3, width=60, height=50, dtype="uint8",
        photometric="RGB", crs="EPSG:4326", transform=Affine(1e-3, 0, 9, 0, -1e-3, 48),
    ) as dataset:  # fmt: skip
        dataset.write(np.random.default_rng(0).integers(1, 255, (3, 50, 60), np.uint8))
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "quarter", "geometry": None, "links": [],
        "properties": {"datetime": None, "start_datetime": START, "end_datetime": END},
        "assets": {"image": {"href": "a.tif", "type": "image/tiff", "roles": ["data"]}},
    }  # fmt: skip
    (tmp_path / "item.json").write_text(json.dumps(item))
    made = Archive.create(tmp_path / "archive", ColourEncoder())
    assert made.add(tmp_path / "item.json").added == 1
    return made


@pytest.mark.slow
def test_it_is_found_at_any_time_of_the_interval(archive: Archive) -> None:
    (record,) = archive.records()
    assert record.datetime == datetime(2024, 4, 1, tzinfo=UTC)
    for month, found in ((3, 0), (4, 1), (5, 1), (6, 1), (7, 0)):
        within = Filter(start=datetime(2024, month, 2), end=datetime(2024, month, 28))
        assert archive.count(within) == found, month
        assert len(archive.search(archive.vectors([record.id])[0], 3, filter=within)) == found
    assert archive.add(Path(record.source)).unchanged == 1


def test_both_ends_are_exported(archive: Archive, tmp_path: Path) -> None:
    export(archive, tmp_path / "out.json", format="stac")
    (feature,) = json.loads((tmp_path / "out.json").read_text())["features"]
    properties = feature["properties"]
    assert (properties["start_datetime"], properties["end_datetime"]) == (START, END)
