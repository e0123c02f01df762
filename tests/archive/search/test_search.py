"""What can be asked of an archive, each against what NumPy and the records say."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from shapely.geometry import box, mapping, shape

from rsir.archive import Archive, ByFile, ById, ByWindow, Examples
from rsir.archive.folder.external import ExternalEncoder
from rsir.archive.search.calibration import Calibration
from rsir.archive.search.diverse import OVERLAP, near_duplicate
from rsir.archive.search.feedback import refined
from rsir.archive.search.search import Search
from rsir.errors import ArchiveError, ImageError, UsageError
from rsir.images.read import read_tile
from rsir.ranking import metric_named, pairwise
from rsir.scenes.tiling import Tiling
from rsir.store.filters.filter import Filter
from rsir.store.knn import flat
from rsir.store.open import without_secrets
from rsir.store.records.record import Record
from tests.support.colour_encoder import ColourEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scene of 7 × 5 fields of 64 pixels with a place, and three chips without one."""
    root = tmp_path_factory.mktemp("set")
    random = np.random.default_rng(0)
    fields = random.integers(1, 250, (3, 5, 7)).repeat(64, axis=1).repeat(64, axis=2)
    pixels = (fields * random.uniform(0.9, 1, fields.shape)).astype(np.uint8)
    with rasterio.open(
        root / "scene.tif", "w", driver="GTiff", count=3, width=448, height=320, dtype="uint8",
        crs="EPSG:32633", transform=Affine(10, 0, 600_000, 0, -10, 5_000_000), photometric="rgb",
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        dataset.update_tags(TIFFTAG_DATETIME="2021:07:14 10:30:05")
    (root / "chips").mkdir()
    for name in ("a", "b", "c"):
        chip = (random.integers(1, 250, (3, 1, 1)) * random.uniform(0.8, 1, (3, 40, 40))).astype(
            np.uint8
        )
        Image.fromarray(chip.transpose(1, 2, 0)).save(root / "chips" / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    archive = Archive.create(tmp_path_factory.mktemp("kept") / "archive", ColourEncoder())
    archive.add(folder, tiling=Tiling(size=64))
    return archive


@pytest.fixture
def archive(made):
    return Archive.open(made.path, ColourEncoder())


def everything(archive):
    records = list(archive.records())
    return records, archive.vectors([r.id for r in records])


def ranked(archive, vector, keep=lambda record: True, metric=None, bits=None):
    """(distance, id) of all records that are kept, nearest first, ties by id."""
    records, vectors = everything(archive)
    kept = [(r, v) for r, v in zip(records, vectors, strict=True) if keep(r)]
    if not kept:
        return []
    rows = np.stack([v for _, v in kept])
    if bits is not None:
        vector, rows = vector[: -(-bits // 8)], rows[:, : -(-bits // 8)]
    far = pairwise(metric or archive.metric, vector[None], rows)[0]
    return sorted((float(d), r.id) for d, (r, _) in zip(far, kept, strict=True))


def found(hits):
    return [(hit.distance, hit.id) for hit in hits]


def tile_at(archive, column, row):
    return next(r for r in archive.records() if r.properties.get("window") == [column, row, 64, 64])


def test_by_id_without_itself(archive):
    records, vectors = everything(archive)
    for record, vector in list(zip(records, vectors, strict=True))[::7]:
        wanted = [(d, id) for d, id in ranked(archive, vector) if id != record.id]
        assert found(archive.search(ById(record.id), 5)) == wanted[:5]
        assert found(archive.search(ById(record.id), 1000)) == wanted
    with pytest.raises(ArchiveError, match="no record 'nobody'"):
        archive.search(ById("nobody"))


def test_by_a_window_of_a_scene(archive, folder):
    source = str(folder / "scene.tif")
    tile = tile_at(archive, 128, 64)
    by_pixels = archive.search(ByWindow(source, window=(128, 64, 64, 64)), 3)
    assert (by_pixels[0].id, by_pixels[0].distance) == (tile.id, 0)
    west, south, east, north = shape(tile.footprint).bounds
    # UTM is turned a little against the degrees: the box around it in degrees is a pixel wider.
    inner = 0.03 * (east - west)
    in_degrees = ByWindow(source, bbox=(west + inner, south + inner, east - inner, north - inner))
    assert archive.search(in_degrees, 1)[0].id == tile.id
    centre = shape(tile.footprint).centroid
    at = archive.search(ByWindow(source, point=(centre.x, centre.y), size=640), 1)
    assert (at[0].id, at[0].distance) == (tile.id, 0)
    # What lies beyond the edge is left out.
    corner = archive.search(ByWindow(source, window=(-30, -30, 94, 94)), 1)[0]
    assert (corner.id, corner.distance) == (tile_at(archive, 0, 0).id, 0)


def test_a_window_of_a_picture(archive, folder):
    chip = str(folder / "chips" / "a.png")
    window = ByWindow(chip, window=(5, 10, 20, 25))
    vector = ColourEncoder().encode([read_tile(chip).pixels[:, 10:35, 5:25]]).embedding[0]
    assert found(archive.search(window, 4)) == ranked(archive, vector)[:4]
    with pytest.raises(UsageError, match="one image"):
        archive.search(ByWindow(chip, bbox=(0, 0, 1, 1)))
    with pytest.raises(UsageError, match="not in"):
        archive.search(ByWindow(chip, window=(40, 0, 5, 5)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda s: ByWindow(s, window=(448, 0, 9, 9)), "not in"),
        (lambda s: ByWindow(s, bbox=(0, 0, 1, 1)), "not in|reach"),
        (lambda s: ByWindow(s, bbox=(15, 46, 16, 45)), "box"),
        (lambda s: ByWindow(s, point=(16.2, 45.1), size=0), "size"),
        (lambda s: ByWindow(s), "one of them"),
        (lambda s: ByWindow(s, point=(16.2, 45.1)), "one of them"),
        (lambda s: ByWindow(s, window=(0, 0, 9, 9), bbox=(0, 0, 1, 1)), "one of them"),
        (lambda s: ByWindow("/etc/hostname", window=(0, 0, 9, 9)), "nothing of"),
        (lambda s: ByWindow("x' OR 1=1 --", window=(0, 0, 9, 9)), "nothing of"),
    ],
)
def test_wrong_windows_are_refused(archive, folder, make, reason):
    with pytest.raises(UsageError, match=reason):
        archive.search(make(str(folder / "scene.tif")))


def test_examples_are_refined_as_rocchio_says(archive, folder):
    records, vectors = everything(archive)
    like, unlike, image = [3, 8], [20], str(folder / "chips" / "b.png")
    asked = ColourEncoder().encode([read_tile(image).pixels]).embedding[0]
    wanted = refined("euclidean", 16, asked, vectors[like], vectors[unlike])
    query = Examples(
        [ById(records[i].id) for i in like], [ById(records[i].id) for i in unlike], image
    )
    named = {records[i].id for i in like + unlike}
    right = [(d, id) for d, id in ranked(archive, wanted) if id not in named]
    assert found(archive.search(query, 6)) == right[:6]
    # Vectors and images as examples name no tile.
    mixed = Examples([vectors[3], image])
    wanted = refined("euclidean", 16, None, np.stack([vectors[3], asked]), vectors[:0])
    assert found(archive.search(mixed, 4)) == ranked(archive, wanted)[:4]
    with pytest.raises(UsageError, match="example of what is wanted"):
        archive.search(Examples(unlike=[vectors[3]]))
    with pytest.raises(UsageError, match="made of examples"):
        archive.search(Examples(like=[mixed]))


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


def test_filters_at_any_selectivity(archive, folder):
    records, vectors = everything(archive)
    query = vectors[11]
    area = shape(tile_at(archive, 64, 64).footprint).buffer(0.001)
    cases = {
        "area": (Filter(geometry=mapping(area)), lambda r: _touches(r, area)),
        "bbox": (Filter(bbox=area.bounds), lambda r: _touches(r, box(*area.bounds))),
        "class": (Filter(classes=["chips"]), lambda r: r.properties.get("class") == "chips"),
        "one": (Filter(where=f"id = '{records[3].id}'"), lambda r: r.id == records[3].id),
        "time": (Filter(start=datetime(2021, 7, 14, tzinfo=UTC)), lambda r: r.datetime is not None),
        "none": (Filter(classes=["moon"]), lambda r: False),
        "all": (Filter(where="width > 1"), lambda r: True),
    }
    for name, (filter, keep) in cases.items():
        wanted = ranked(archive, query, keep)
        assert (len(wanted) == 0) == (name == "none"), name
        hits = archive.search(query, 100, filter=filter)
        assert found(hits) == wanted, name
        assert hits.searched == len(wanted) == archive.count(filter), name
        assert [r.id for r in archive.records(filter)] == sorted(id for _, id in wanted)


def _touches(record, area):
    return record.footprint is not None and shape(record.footprint).intersects(area)


def test_percentiles_and_the_lowest_of_them(archive):
    records, vectors = everything(archive)
    # Of fewer vectors than the sample all are in it.
    own = Calibration.of("euclidean", vectors)
    hits = archive.search(vectors[0], 100)
    for hit in hits:
        assert hit.percentile == own.percentile(np.array([hit.distance]))[0]
    percentiles = [hit.percentile for hit in hits]
    assert percentiles == sorted(percentiles, reverse=True)
    assert percentiles[0] > 90
    for cut in (0, 50, 90):
        kept = archive.search(vectors[0], 100, min_percentile=cut)
        assert found(kept) == [f for f, p in zip(found(hits), percentiles, strict=True) if p >= cut]
    nothing = archive.search(vectors[0] + 100, 10, min_percentile=50)
    assert len(nothing) == 0
    assert nothing.searched == len(records)
    for wrong in (-0.1, 100, 101, float("nan")):
        with pytest.raises(UsageError, match="min_percentile"):
            archive.search(vectors[0], min_percentile=wrong)


def test_diverse_hits_show_no_place_twice(folder, tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(folder, tiling=Tiling(size=64, stride=16))
    records, vectors = everything(archive)
    places = {r.id: r for r in records}
    number = {r.id: i for i, r in enumerate(records)}
    limit = near_duplicate(metric_named("euclidean"), 16)
    for query in vectors[[0, 70, 200]]:
        # Down the whole ranking, each against all that stay.
        stay = []
        for _, id in ranked(archive, query):
            new = True
            for other in stay:
                near = pairwise("euclidean", vectors[[number[id]]], vectors[[number[other]]])
                one, two = places[id].footprint, places[other].footprint
                if one and two:
                    one, two = shape(one), shape(two)
                    smaller = min(one.area, two.area)
                    new &= one.intersection(two).area < OVERLAP * smaller
                new &= near[0, 0] > limit
            if new:
                stay.append(id)
        for k in (1, 7, 30, 1000):
            hits = archive.search(query, k, diverse=True)
            assert [hit.id for hit in hits] == stay[:k]
    by_id = archive.search(ById(records[70].id), 5, diverse=True)
    assert records[70].id not in {hit.id for hit in by_id}


def test_hits_read_their_records_when_they_are_looked_at(archive, monkeypatch):
    _, vectors = everything(archive)
    read = []
    original = Search._hit
    monkeypatch.setattr(Search, "_hit", lambda *a: read.append(1) or original(*a))
    hits = archive.search(vectors[0], 30)
    assert len(hits) == 30
    assert (hits.distances == [d for d, _ in ranked(archive, vectors[0])][:30]).all()
    assert not read
    page = hits[5:8]
    assert len(read) == 3
    assert [hit.id for hit in page] == [id for _, id in ranked(archive, vectors[0])][5:8]
    assert hits[6] is page[1]
    assert hits[-1].distance == hits.distances[-1]
    assert len(read) == 4
    with pytest.raises(IndexError):
        hits[30]


def test_adaptive_archives_are_searched_by_plain_hamming_too(folder, tmp_path, monkeypatch):
    archive = Archive.create(tmp_path / "archive", ColourEncoder("adaptive-hamming:3", 13))
    archive.add(folder, tiling=Tiling(size=64))
    _, vectors = everything(archive)
    for query in vectors[:3]:
        hits = archive.search(query, 12, ranking="hamming")
        assert found(hits) == ranked(archive, query, metric="hamming", bits=13)[:12]
        assert all(0 <= hit.percentile < 100 for hit in hits)
        assert found(archive.search(query, 12)) == ranked(archive, query)[:12]
    for apart in (10**6, 1):  # one after the other, and side by side
        monkeypatch.setattr(flat, "_CODES_APART", apart)
        together = archive.search_many(list(vectors), 12)
        assert [found(hits) for hits in together] == [ranked(archive, v)[:12] for v in vectors]
    with pytest.raises(UsageError, match="searched by"):
        archive.search(vectors[0], ranking="cosine")


def test_earlier_versions_are_searched_and_brought_back(folder, tmp_path):
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    archive.add(folder / "chips")
    first = archive.versions()[-1]
    chips = {r.id for r in archive.records()}
    archive.add(folder / "scene.tif", tiling=Tiling(size=64))
    archive.delete(sorted(chips)[:1])
    before = archive.at(first.version)
    query = folder / "chips" / "a.png"
    assert {hit.id for hit in before.search(query, 100)} == chips
    assert (len(before), before.search(query).searched) == (3, 3)
    for change in (
        lambda: before.delete(list(chips)),
        lambda: before.add(folder),
        lambda: before.optimize(),
    ):
        with pytest.raises(ArchiveError, match="cannot be changed"):
            change()
    assert len(archive) == 35 + 2
    archive.restore(first.version)
    assert {r.id for r in archive.records()} == chips
    assert [v.version for v in archive.versions()] == sorted(v.version for v in archive.versions())
    with pytest.raises(ArchiveError, match="does not keep"):
        archive.at(10_000)
    with pytest.raises(ArchiveError, match="does not keep"):
        archive.restore(10_000)


def test_embeddings_made_elsewhere_are_searched_but_not_by_image(folder, tmp_path):
    archive = Archive.create(tmp_path / "archive", ExternalEncoder("clay", "cosine", 4))
    vectors = np.eye(4, dtype=np.float32) + 0.1
    archive.store.add([Record(f"r{i}", f"s{i}", "") for i in range(4)], vectors)
    archive = Archive.open(archive.path)
    assert archive.search(vectors[2], 1)[0].id == "r2"
    assert [hit.id for hit in archive.search(ById("r2"), 2)] == ["r0", "r1"]
    with pytest.raises(UsageError, match="made elsewhere"):
        archive.search(read_tile(folder / "chips" / "a.png").pixels[:0])
    with pytest.raises(UsageError, match="made elsewhere"):
        archive.search(folder / "chips" / "a.png")
    with pytest.raises(UsageError, match="made elsewhere"):
        archive.add(folder)


def test_the_exact_ranking_has_recall_one(archive):
    _, vectors = everything(archive)
    assert archive.recall(list(vectors[:5]), 10, "euclidean") == 1.0
    empty = Filter(classes=["moon"])
    assert archive.recall(list(vectors[:2]), 10, "euclidean", filter=empty) == 1.0


def test_repr_of_hits_names_every_kind_of_query(archive, folder):
    records, vectors = everything(archive)
    one = records[0].id
    for query, name in itertools.zip_longest(
        [ById(one), ByWindow(str(folder / "scene.tif"), window=(0, 0, 64, 64)), vectors[0]],
        [f"the tile {one}", "a window of", "a vector"],
    ):
        assert f"3 hits for {name}" in repr(archive.search(query, 3))
    assert "1 examples and 0" in repr(archive.search(Examples([ById(one)]), 3))


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


def test_a_percentile_that_so_few_images_cannot_tell_is_refused(archive):
    _, vectors = everything(archive)
    highest = archive.calibration().highest
    assert len(archive.search(vectors[0], 3, min_percentile=highest)) <= 3
    with pytest.raises(UsageError, match="too small to tell a percentile"):
        archive.search(vectors[0], min_percentile=99.99)


def test_prune_knows_the_collection_of_an_item(archive, folder, tmp_path):
    fresh = Archive.create(tmp_path / "archive", ColourEncoder())
    items = tmp_path / "items.geojson"
    items.write_text("{}")
    sources = [f"{items}#a", f"{items}#b", str(tmp_path / "gone.tif"), str(tmp_path / "no#one")]
    records = [Record(str(i), source, "") for i, source in enumerate(sources)]
    fresh.store.add(records, np.ones((4, 16), np.float32))
    assert fresh.prune() == ["2", "3"]
    items.unlink()
    with pytest.raises(ArchiveError, match="none of the 2 files"):
        fresh.prune()


def test_no_secret_of_a_cluster_is_written_down():
    said = without_secrets("milvus://me:secret@host:1234/tiles?token=hidden")
    assert said == "milvus://host:1234/tiles"
    assert without_secrets("s3://bucket/tiles.lance") == "s3://bucket/tiles.lance"
    with pytest.raises(UsageError, match="no store is known"):
        without_secrets("ftp://host/x")


# Image files that are read as scenes


def raster(path, pixels, **more):
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, width=width, height=height, dtype=pixels.dtype,
        **more,
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


PLACE = {"crs": "EPSG:32633", "transform": Affine(10, 0, 600_000, 0, -10, 5_000_000)}


@pytest.mark.parametrize(
    ("kind", "bands", "stretch", "more"),
    [
        (np.uint16, ("red=3", "green=2", "blue=1"), "auto", {"photometric": "minisblack", **PLACE}),
        (np.uint16, ("red=6", "green=5", "blue=4"), "range:0,200", PLACE),
        (np.uint8, None, "auto", {"nodata": 0, "photometric": "rgb", **PLACE}),
        (np.uint8, None, "percentile:10,90", {"nodata": 0, "photometric": "rgb", **PLACE}),
        (np.uint16, None, "auto", {"photometric": "rgb", **PLACE}),
    ],
)
def test_a_file_is_read_as_indexing_reads_it(tmp_path, kind, bands, stretch, more):
    from rsir.scenes.stretch import Stretch

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


def test_files_that_are_no_query(archive, folder, tmp_path):
    six = raster(
        tmp_path / "six.tif", np.ones((6, 9, 9), np.uint16), photometric="minisblack", **PLACE
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


def test_a_size_that_is_none():
    with pytest.raises(UsageError, match="a size is metres, not nan"):
        ByWindow("x", point=(1, 2), size=float("nan"))


@pytest.mark.parametrize(
    ("ring", "words"),
    [
        ([[190, 0], [170, 0], [170, 5], [190, 0]], "antimeridian"),
        ([[1, 97], [2, 97], [2, 98], [1, 97]], "longitude comes first"),
        ([[600_000, 5e6], [700_000, 5e6], [700_000, 5.1e6], [600_000, 5e6]], "not degrees"),
    ],
)
def test_polygons_beyond_the_globe(ring, words):
    with pytest.raises(UsageError, match=words) as refused:
        Filter(geometry={"type": "Polygon", "coordinates": [ring]})
    assert ("antimeridian" in str(refused.value)) == (words == "antimeridian")
