"""Queries by file, by window and by example, against what the files and NumPy say."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from shapely.geometry import shape

from rsir.archive import Archive, ByFile, ById, ByWindow, Examples
from rsir.archive.search.feedback import refined
from rsir.errors import ImageError, UsageError
from rsir.images.read import read_tile
from rsir.scenes.stretch import Stretch
from rsir.scenes.tiling import Tiling
from rsir.store.filters.filter import Filter
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder
from tests.support.searching import archive_of, everything, found, ranked, tile_at


def test_by_a_window_of_a_scene(archive, folder):
    source = str(folder / "scene.tif")
    tile = tile_at(archive, 128, 64)
    by_pixels = archive.search(ByWindow(source, window=(128, 64, 64, 64)), 3)
    assert (by_pixels[0].id, by_pixels[0].distance) == (tile.id, 0)
    west, south, east, north = shape(tile.footprint).bounds
    # UTM is rotated a little against degrees: the box in degrees is a pixel wider.
    inner = 0.03 * (east - west)
    in_degrees = ByWindow(source, bbox=(west + inner, south + inner, east - inner, north - inner))
    assert archive.search(in_degrees, 1)[0].id == tile.id
    centre = shape(tile.footprint).centroid
    at = archive.search(ByWindow(source, point=(centre.x, centre.y), size=640), 1)
    assert (at[0].id, at[0].distance) == (tile.id, 0)
    # Pixels beyond the edge are left out.
    corner = archive.search(ByWindow(source, window=(-30, -30, 94, 94)), 1)[0]
    assert (corner.id, corner.distance) == (tile_at(archive, 0, 0).id, 0)


def test_a_window_of_a_picture(archive, folder):
    chip = str(folder / "chips" / "a.png")
    window = ByWindow(chip, window=(5, 10, 20, 25))
    vector = ColourEncoder().encode([read_tile(chip).pixels[:, 10:35, 5:25]]).embedding[0]
    assert found(archive.search(window, 4)) == ranked(archive, vector)[:4]
    with pytest.raises(UsageError, match="no georeference: give the window in its pixels"):
        archive.search(ByWindow(chip, bbox=(0, 0, 1, 1)))
    with pytest.raises(UsageError, match="not in"):
        archive.search(ByWindow(chip, window=(40, 0, 5, 5)))


@pytest.mark.parametrize("bands", [1, 3])
def test_a_window_in_degrees_of_an_image_that_was_indexed_whole(tmp_path, bands):
    """Against the slice of its pixels, and with the window in pixels."""
    pixels = np.random.default_rng(1).integers(0, 255, (bands, 90, 120), np.uint8)
    path, step = tmp_path / "a.tif", 1e-4
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, width=120, height=90, dtype="uint8",
        crs="EPSG:4326", transform=Affine(step, 0, 11, 0, -step, 48),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(path)
    assert "window" not in next(archive.records()).properties
    wanted = np.broadcast_to(pixels[:, 20:60, 30:80], (3, 40, 50))
    box = (11 + 30 * step, 48 - 60 * step, 11 + 80 * step, 48 - 20 * step)
    for query in (
        ByWindow(str(path), window=(30, 20, 50, 40)),
        ByWindow(str(path), bbox=box),
    ):
        np.testing.assert_array_equal(archive.pixels(query), wanted)
    middle = (11 + 55 * step, 48 - 40 * step)
    around = archive.pixels(ByWindow(str(path), point=middle, size=222.0))
    # 222 m: 20 pixels of 11.1 m to the north, and 30 of 7.4 m to the east.
    assert around.shape == (3, 20, 30)
    np.testing.assert_array_equal(around, np.broadcast_to(pixels[:, 30:50, 40:70], (3, 20, 30)))
    with pytest.raises(UsageError, match="not in"):
        archive.pixels(ByWindow(str(path), bbox=(12, 47, 12.1, 47.1)))


def test_a_scene_may_be_named_by_a_path_and_is_looked_up_once(archive, folder, monkeypatch):
    name = str(folder / "scene.tif")
    wanted = found(archive.search(ByWindow(name, window=(0, 64, 64, 64)), 5))
    filters = []
    records = type(archive.store).records

    def spy(self, filter=None):
        filters.append(filter)
        return records(self, filter)

    monkeypatch.setattr(type(archive.store), "records", spy)
    monkeypatch.chdir(folder)
    for source in ("scene.tif", "chips/../scene.tif", f"file://{name}", name):
        assert found(archive.search(ByWindow(source, window=(0, 64, 64, 64)), 5)) == wanted
        assert len(filters) == 1
        filters.clear()


def test_the_pixels_that_a_query_holds(archive, folder):
    chip = read_tile(folder / "chips" / "a.png").pixels
    for query in (folder / "chips" / "a.png", str(folder / "chips" / "a.png"), chip):
        np.testing.assert_array_equal(archive.pixels(query), chip)
    with rasterio.open(folder / "scene.tif") as scene:
        wanted = scene.read(window=((32, 96), (5, 45)))
    window = ByWindow(str(folder / "scene.tif"), window=(5, 32, 40, 64))
    # The tiles were stretched; of 8 bits without nodata that changes nothing.
    np.testing.assert_array_equal(archive.pixels(window), wanted)
    for query in (ById("a"), np.zeros(16), Examples([chip])):
        with pytest.raises(UsageError, match="is not an image"):
            archive.pixels(query)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda s: ByWindow(s, window=(448, 0, 9, 9)), "not in"),
        (lambda s: ByWindow(s, bbox=(0, 0, 1, 1)), "not in|reach"),
        (lambda s: ByWindow(s, bbox=(15, 46, 16, 45)), "box"),
        (lambda s: ByWindow(s, point=(16.2, 45.1), size=0), "size"),
        (lambda s: ByWindow("/etc/hostname", window=(0, 0, 9, 9)), "no tiles of"),
        (lambda s: ByWindow("x' OR 1=1 --", window=(0, 0, 9, 9)), "no tiles of"),
    ],
)
def test_windows_outside_the_archive_are_refused(archive, folder, make, reason):
    with pytest.raises(UsageError, match=reason):
        archive.search(make(str(folder / "scene.tif")))


def test_examples_are_refined_as_rocchio_says(archive, folder):
    records, vectors = everything(archive)
    like, unlike, image = [3, 8], [20], str(folder / "chips" / "b.png")
    vector = ColourEncoder().encode([read_tile(image).pixels]).embedding[0]
    wanted = refined("euclidean", 16, vector, vectors[like], vectors[unlike])
    query = Examples(
        [ById(records[i].id) for i in like], [ById(records[i].id) for i in unlike], image
    )
    named = {records[i].id for i in like + unlike}
    expected = [(d, id) for d, id in ranked(archive, wanted) if id not in named]
    assert found(archive.search(query, 6)) == expected[:6]
    # Vectors and images as examples name no tile.
    mixed = Examples([vectors[3], image])
    wanted = refined("euclidean", 16, None, np.stack([vectors[3], vector]), vectors[:0])
    assert found(archive.search(mixed, 4)) == ranked(archive, wanted)[:4]
    with pytest.raises(UsageError, match="a query or a positive example"):
        archive.search(Examples(unlike=[vectors[3]]))


def test_queries_of_all_kinds_together(archive, folder):
    records, vectors = everything(archive)
    queries = [
        str(folder / "chips" / "a.png"),
        ById(records[4].id),
        Examples([vectors[1], ById(records[2].id)], [vectors[9]]),
        vectors[7],
        ByWindow(str(folder / "scene.tif"), window=(10, 20, 64, 64)),
        read_tile(folder / "chips" / "c.png").pixels,
    ]
    together = archive.search_many(queries, 5)
    assert [found(hits) for hits in together] == [found(archive.search(q, 5)) for q in queries]
    assert [hits.query is q for hits, q in zip(together, queries, strict=True)] == [True] * 6


def test_a_16_bit_query_is_read_as_scenes_are(archive, tmp_path):
    pixels = np.random.default_rng(0).integers(1, 4000, (3, 50, 60)).astype(np.uint16)
    path = tmp_path / "deep.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=60, height=50, dtype="uint16", photometric="rgb",
        crs="EPSG:32633", transform=Affine(10, 0, 600_000, 0, -10, 5_000_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    low, high = np.percentile(pixels, [2, 98], axis=(1, 2))[:, :, None, None]
    stretched = np.rint(255 * (pixels - low) / (high - low)).clip(0, 255).astype(np.uint8)
    vector = ColourEncoder().encode([stretched]).embedding[0]
    wanted = ranked(archive, vector)[:5]
    hits = archive.search(path, 5)
    assert [hit.id for hit in hits] == [id for _, id in wanted]
    assert hits.distances == pytest.approx([d for d, _ in wanted], abs=0.01)
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.tif"):
        archive.search(tmp_path / "text.tif")


def raster(path, pixels, **more):
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, width=width, height=height, dtype=pixels.dtype,
        **more,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


GEOREFERENCE = {"crs": "EPSG:32633", "transform": Affine(10, 0, 600_000, 0, -10, 5_000_000)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "bands", "stretch", "more"),
    [
        (
            np.uint16,
            ("red=3", "green=2", "blue=1"),
            "auto",
            {"photometric": "minisblack", **GEOREFERENCE},
        ),
        (np.uint16, ("red=6", "green=5", "blue=4"), "range:0,200", GEOREFERENCE),
        (np.uint8, None, "auto", {"nodata": 0, "photometric": "rgb", **GEOREFERENCE}),
        (np.uint8, None, "percentile:10,90", {"nodata": 0, "photometric": "rgb", **GEOREFERENCE}),
        (np.uint16, None, "auto", {"photometric": "rgb", **GEOREFERENCE}),
    ],
)
def test_a_file_is_read_as_indexing_reads_it(tmp_path, kind, bands, stretch, more):
    random = np.random.default_rng(5)
    fields = random.integers(1, 250, (6 if bands else 3, 4, 4)).repeat(20, 1).repeat(20, 2)
    fields[:, :30, :30] = 0
    path = raster(tmp_path / "file.tif", fields.astype(kind), **more)
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    report = archive.add(path, tiling=Tiling(bands=bands, stretch=Stretch.parse(stretch)))
    assert report.added == 1
    assert report.tiles == 1
    hits = archive.search(ByFile(path, bands, stretch))
    assert hits[0].distance == pytest.approx(0, abs=1e-6)
    assert "file.tif" in repr(hits)
    examples = archive.search(Examples([ByFile(str(path), bands, stretch)]))
    assert examples[0].distance == pytest.approx(0, abs=1e-6)
    if bands is None and stretch == "auto":
        assert archive.search(path)[0].distance == pytest.approx(0, abs=1e-6)


def test_files_that_cannot_be_a_query(archive, folder, tmp_path):
    six = raster(
        tmp_path / "six.tif",
        np.ones((6, 9, 9), np.uint16),
        photometric="minisblack",
        **GEOREFERENCE,
    )
    with pytest.raises(UsageError, match="it has 1, 2, 3, 4, 5, 6"):
        archive.search(six)
    with pytest.raises(UsageError, match="uint8 array of the bands"):
        archive.search(ByFile(six, ("1", "2")))
    with pytest.raises(UsageError, match="stretch"):
        archive.search(ByFile(six, ("1", "2", "3"), "nonsense"))
    for missing in (tmp_path / "none.png", ByFile(tmp_path / "none.png", ("1",))):
        with pytest.raises(ImageError, match=r"none\.png: no such file"):
            archive.search(missing)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"bad\.png"):
        archive.search(tmp_path / "bad.png")


def test_examples_may_come_from_a_generator():
    vectors = np.eye(4, dtype=np.float32)
    archive = archive_of([Record(f"r{i}", "s", "c") for i in range(4)], vectors)
    generated = Examples(like=(ById(f"r{i}") for i in range(2)), query=vectors[2])
    listed = Examples(like=[ById("r0"), ById("r1")], query=vectors[2])
    hits, wanted, _ = archive.search_many([generated, listed, vectors[3]], 4)
    assert found(hits) == found(wanted)
    assert {hit.id for hit in hits} == {"r2", "r3"}


def test_classes_and_windows_that_are_not_unicode_are_refused(tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    archive.add(tmp_path / "a.png")
    with pytest.raises(UsageError, match="not valid Unicode"):
        archive.count(Filter(classes=["\udcff"]))
    with pytest.raises(UsageError, match="not valid Unicode"):
        archive.search(ByWindow("/\udcff.tif", window=(0, 0, 8, 8)))
