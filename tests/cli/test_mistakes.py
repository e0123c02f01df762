"""Typical mistakes: the shell reports each at once, in words, and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

import rsir
from rsir.cli.filters import filter_of, polygons
from rsir.errors import UsageError
from tests.cli.running import Shell


def test_a_missing_query_file(shell: Shell, images: Path) -> None:
    done = shell("search", images, "nowhere.png")
    assert done.status == 1
    assert "nowhere.png: no such file" in done.err
    assert "prune" not in done.err


@pytest.mark.parametrize(
    "option", ["--datetime", "--where", "--class", "--source", "--bbox", "--within"]
)
def test_empty_text_is_no_filter(shell: Shell, images: Path, option: str) -> None:
    for verb in (("search", images, "--id", "x"), ("delete", images, "--yes")):
        done = shell(*verb, option, "")
        assert done.status == 2
        assert f"{option} is empty; leave it out" in done.err


def test_an_empty_path_names_nothing(shell: Shell, tmp_path: Path) -> None:
    done = shell("index", tmp_path / "new", "", "--model", tmp_path)
    assert done.status == 2
    assert "an empty path names nothing" in done.err
    assert not (tmp_path / "new").exists()


def test_delete_refuses_unknown_properties(shell: Shell, copy: Path) -> None:
    before = len(rsir.open(copy))
    done = shell("delete", copy, "--where", "nope IS NULL", "--yes")
    assert done.status == 2
    assert "nope" in done.err
    assert "stretch" in done.err  # an existing property
    odd = shell("delete", copy, "--where", 'NOT ("a ""b" = 1 OR window IS NULL)', "--yes")
    assert odd.status == 2
    assert 'a "b' in odd.err
    assert len(rsir.open(copy)) == before
    some = shell("delete", copy, "--where", "width < 0 OR source = ''", "--yes", "--json")
    assert some.status == 0, some.err


def test_search_and_export_name_unknown_properties(
    shell: Shell, tiles: Path, tmp_path: Path
) -> None:
    first = next(rsir.open(tiles).records()).id
    done = shell("search", tiles, "--id", first, "-k", 99, "--where", "nope IS NULL")
    assert done.status == 0
    assert "no image has the property nope" in done.err
    assert "20 images" not in done.err  # all of them are searched, the tile itself too
    wrote = shell("export", tiles, tmp_path / "all.csv", "--where", "nope IS NULL")
    assert wrote.status == 0
    assert "no image has the property nope" in wrote.err
    right = shell("search", tiles, "--id", first, "--where", "stretch IS NOT NULL")
    assert "property" not in right.err


def test_indexing_nothing_is_a_failure(
    shell: Shell, images: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.png").write_bytes(b"nothing")
    archive = tmp_path / "archive"
    done = shell("index", archive, tmp_path / "bad", "--model", model)
    assert done.status == 1
    assert "0 added" in done.out
    assert shell("index", archive, tmp_path / "bad", "--json").status == 1
    Image.new("RGB", (32, 32), (9, 99, 9)).save(tmp_path / "bad" / "good.png")
    for _ in range(2):  # added, then unchanged
        assert shell("index", archive, tmp_path / "bad").status == 0
    assert shell("index", archive, "--model", model).status == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--bands", ","),
        ("--bands", "red,red,red"),
        ("--bands", "red,green,red=4"),
        ("--tile-size", "1e9"),
        ("--tile-size", "1e9", "--unit", "metres", "--gsd", "10"),
        ("--gsd", "many"),
    ],
)
def test_options_of_a_tiling_are_checked_first(
    shell: Shell, model: Path, scenes: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = shell("index", tmp_path / "new", scenes / "west.tif", "--model", model, *options)
    assert done.status == 2
    assert "west.tif" not in done.err
    assert not (tmp_path / "new").exists()


def test_a_model_that_does_not_know_its_gsd(
    shell: Shell, model: Path, scenes: Path, tmp_path: Path
) -> None:
    done = shell("index", tmp_path / "new", scenes / "west.tif", "--model", model, "--gsd", "model")
    assert done.status == 2
    assert "does not say" in done.err


def test_messages_show_numbers_as_typed(shell: Shell, tiles: Path, tmp_path: Path) -> None:
    first = next(rsir.open(tiles).records()).id
    done = shell("search", tiles, "--id", first, "--min-percentile", 99.999999)
    assert done.status == 2
    assert "99.999999" in done.err
    classes = shell(
        "index", tiles, tiles, "--cloud-mask", "x", "--cloud-classes", "x", "--model", tmp_path
    )
    assert classes.status == 2
    assert "write it as A,B,C" in classes.err
    assert "1 numbers" not in classes.err


@pytest.mark.parametrize("content", [b"nothing", b"", b"\x93NUMPY", b"\x80\x04K\x01."])
def test_a_bad_vector_file(shell: Shell, images: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npy").write_bytes(content)
    done = shell("search", images, "--vector", tmp_path / "bad.npy")
    assert done.status == 1
    assert "pickle" not in done.err
    assert "numpy.save" in done.err


def test_a_vector_file_of_objects(shell: Shell, images: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.array([1, "a", None], object), allow_pickle=True)
    done = shell("search", images, "--vector", tmp_path / "bad.npy")
    assert done.status == 1
    assert "pickle" not in done.err


def square(west: float, south: float, side: float) -> dict[str, object]:
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    return {"type": "Polygon", "coordinates": [[[west + x, south + y] for x, y in ring]]}


def test_geojson_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "bom.geojson"
    file.write_text(json.dumps(square(10, 10, 1)), "utf-8-sig")
    assert polygons(file) == square(10, 10, 1)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [90, 900, 5000, 100_000])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[", "]"),
        ('{"type": "FeatureCollection", "features": [', "]}"),
        ('{"type": "Feature", "geometry": ', "}"),
    ],
)
def test_deep_geojson(tmp_path: Path, before: str, after: str, depth: int) -> None:
    for inner in ("0", '{"type": "Polygon", "coordinates": 0}'):
        file = tmp_path / "deep.geojson"
        file.write_text(before * depth + inner + after * depth)
        with pytest.raises(UsageError):
            filter_of(None, file, None, None, None, None)
    file.write_text('{"type": "Polygon", "coordinates": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(UsageError):
        filter_of(None, file, None, None, None, None)


def test_deep_geojson_in_the_shell(shell: Shell, images: Path, query: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.geojson").write_text("[" * 100_000)
    done = shell("search", images, query, "--within", tmp_path / "deep.geojson")
    assert done.status == 2
    assert "deep.geojson" in done.err


def test_the_folder_of_an_output_file_is_created(
    shell: Shell, images: Path, tmp_path: Path
) -> None:
    first = next(rsir.open(images).records()).id
    out = tmp_path / "new" / "folder" / "hits.csv"
    done = shell("search", images, "--id", first, "--format", "csv", "--out", out)
    assert done.status == 0, done.err
    assert out.read_text().count("\n") == 11


def test_left_out_masks_are_counted(
    shell: Shell, scenes: Path, model: Path, tmp_path: Path
) -> None:
    mask = ("--cloud-mask", "{folder}/masks/{stem}_scl.tif", "--tile-size", 32)
    done = shell("index", tmp_path / "new", scenes, "--model", model, *mask)
    assert done.status == 0
    assert done.out.splitlines()[0].endswith("0 other files ignored, 2 masks left out")


@pytest.fixture
def sixteen(tmp_path: Path) -> Path:
    """A file of 16 bits with 6 bands without names."""
    random = np.random.default_rng(1)
    fields = random.integers(100, 3000, (6, 4, 4)).repeat(16, axis=1).repeat(16, axis=2)
    path = tmp_path / "u16.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=6, width=64, height=64, dtype="uint16",
        photometric="minisblack", crs="EPSG:32633", transform=Affine(10, 0, 6e5, 0, -10, 5e6),
    ) as file:  # fmt: skip
        file.write(fields.astype(np.uint16))
    return path


def test_what_can_be_indexed_can_be_a_query(
    shell: Shell, model: Path, sixteen: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    reading = ("--bands", "red=3,green=2,blue=1", "--stretch", "range:0,4000")
    assert shell("index", archive, sixteen, "--model", model, *reading).status == 0
    plain = shell("search", archive, sixteen)
    assert plain.status != 0
    assert "gdal_translate" not in plain.err
    assert "it has 1, 2, 3, 4, 5, 6" in plain.err
    assert "--bands" in plain.err
    for words in ((sixteen,), ("--like", sixteen)):
        done = shell("search", archive, *words, *reading, "--format", "json")
        assert done.status == 0, done.err
        assert json.loads(done.out)[0]["distance"] == pytest.approx(0, abs=1e-5)
    page = shell("search", archive, sixteen, *reading, "--format", "html")
    assert page.status == 0
    assert "Images like u16.tif" in page.out
    wrong = shell("search", archive, sixteen, "--bands", "1,2")
    assert wrong.status == 2
    idle = shell("search", archive, "--id", "x", "--bands", "1,2,3")
    assert idle.status == 2
    assert "--bands" in idle.err
