"""Overviews of archives."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import shapely

pytest.importorskip("nicegui", reason="the page needs the extra 'web'")

from rsir.archive import Archive
from rsir.store.records.record import Record
from rsir.types import Bounds
from rsir.web.page import overview
from rsir.web.page.outlines import SceneOutline
from rsir.web.page.overview import Overview, Overviews
from rsir.web.problems import NotFoundError
from rsir.web.service.service import Service
from tests.web.page.archives import archive_of, square


def overview_of(archive: Archive) -> Overview:
    return overview.overview(archive, Service({"a": archive}).scenes["a"])


def test_an_overview_counts_records_classes_days_and_scenes(tmp_path):
    random, first = np.random.default_rng(2), datetime(2020, 1, 1, 5, tzinfo=UTC)
    records = [
        Record(
            f"{i:03d}", f"/s{i % 7}", "", footprint=square(i % 7, 0) if i % 7 else None,
            datetime=first + timedelta(days=int(random.integers(999))),
            properties={"class": f"c{i % 12}"} if i % 5 else {"class": 3},
        )
        for i in range(60)
    ]  # fmt: skip
    found = overview_of(archive_of(tmp_path / "a", records))
    classes = [r.properties["class"] for r in records if isinstance(r.properties["class"], str)]
    assert found.count == 60
    assert found.classes == {name: classes.count(name) for name in sorted(set(classes))}
    days = [record.datetime.date() for record in records]
    assert found.days == (min(days), max(days))
    outlines = list(found.scenes.values())
    assert sorted(outline.bounds for outline in outlines) == [(i, 0, i + 1, 1) for i in range(1, 7)]
    for outline in outlines:
        assert shapely.Polygon(outline.ring).equals(shapely.box(*outline.bounds))
    assert len(found.examples) == overview.EXAMPLES
    assert len({name for _, name in found.examples}) == overview.EXAMPLES
    by_id = {record.id: record for record in records}
    assert all(by_id[id].properties["class"] == name for id, name in found.examples)


def test_an_outline_takes_any_footprint():
    odd = [
        {"type": "Polygon", "coordinates": "x"},
        {"type": "Polygon", "coordinates": [[[0, 0, 7], [4, 0], [0, 4], [0, 0, 7]]]},
        {"type": "Point", "coordinates": []},
        None,
    ]
    ring = SceneOutline.of((0, 0, 4, 4), odd).ring
    assert shapely.Polygon(ring).equals(shapely.Polygon([(0, 0), (4, 0), (0, 4)]))
    for only in ([], [None], odd[:1]):
        assert shapely.Polygon(SceneOutline.of((1, 2, 3, 4), only).ring).bounds == (1, 2, 3, 4)
    over = SceneOutline.of((179, 0, -179, 1), [])
    assert shapely.Polygon(over.ring).bounds == (179, 0, 181, 1)
    assert over.size == 2
    assert SceneOutline.of((-180, -90, 180, 90), []).size == 360 * 180


def test_overviews_of_small_archives(tmp_path):
    assert overview_of(archive_of(tmp_path / "a", [])) == Overview(0)
    single = overview_of(archive_of(tmp_path / "b", [Record("x", "/x", "")]))
    assert single == Overview(1, examples=(("x", ""),))
    two = [Record(id, "/x", "", properties={"class": "same"}) for id in "yz"]
    assert overview_of(archive_of(tmp_path / "c", two)).examples == (("y", "same"), ("z", "same"))


def test_an_overview_is_made_again_when_the_archive_has_changed(tmp_path):
    archive = archive_of(tmp_path / "a", [Record("x", "/x", "")])
    service = Service({"a": archive})
    overviews = Overviews(service)

    async def overviews_before_and_after() -> tuple[Overview, Overview, Overview]:
        first, same = await overviews.of("a"), await overviews.of("a")
        archive.store.add([Record("y", "/y", "")], np.ones((1, 16), np.float32))
        return first, same, await overviews.of("a")

    first, same, later = asyncio.run(overviews_before_and_after())
    assert first is same
    assert (first.count, later.count) == (1, 2)
    with pytest.raises(NotFoundError):
        asyncio.run(Overviews(service).of("b"))


def test_a_rectangle_belongs_to_the_scene_that_it_overlaps_most():
    boxes: dict[str, Bounds] = {
        "large": (0, 0, 10, 10), "small": (2, 2, 4, 4), "far": (50, 50, 51, 51),
        "over": (170, 30, -175, 40),
    }  # fmt: skip
    found = Overview(4, scenes={name: SceneOutline.of(box, ()) for name, box in boxes.items()})
    for window in ((-178, 33, -176, 35), (171, 33, 172, 35), (175, 33, -176, 35)):
        assert found.scene_of(window) == "over"
    assert found.scene_of((-174, 30, 169, 40)) is None
    assert found.scene_of((2.5, 2.5, 3, 3)) == "small"
    assert found.scene_of((1, 1, 3, 3)) == "large"
    assert found.scene_of((50.5, 50.5, 60, 60)) == "far"
    assert found.scene_of((20, 20, 21, 21)) is None
    assert found.scene_of((10, 0, 11, 1)) is None  # touches
