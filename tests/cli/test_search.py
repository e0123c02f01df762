"""`rsir search`: the shell finds the same hits as Python, in every output format."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
from shapely import wkt
from shapely.geometry import shape

import rsir
from rsir.archive import Archive
from rsir.archive.exchange.features import collection, table
from rsir.archive.search.query import ById, ByWindow, Examples
from rsir.cli.search import search
from rsir.store.filters.filter import Filter
from rsir.types import Hit
from tests.cli.running import TRAIN, Shell


def found(shell: Shell, *arguments: Any) -> list[dict[str, Any]]:
    """The hits of a search as JSON values."""
    done = shell("search", *arguments, "--format", "json")
    assert done.status == 0, done.err
    hits: list[dict[str, Any]] = json.loads(done.out)
    return hits


def as_json(hits: Any) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(json.dumps([hit.to_dict() for hit in hits]))
    return listed


def test_an_image(shell: Shell, images: Path, query: Path) -> None:
    hits = found(shell, images, query, "-k", 5)
    assert hits == as_json(rsir.open(images).search(query, 5))
    assert hits[0]["source"] == str(query)
    assert hits[0]["distance"] == pytest.approx(0, abs=1e-5)
    assert len(found(shell, images, query, "-k", 999)) == 48
    assert len(found(shell, images, query)) == 10


def test_every_kind_of_query(
    shell: Shell, tiles: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = rsir.open(tiles)
    first, second, *_ = (record.id for record in archive.records())
    west = str(scenes / "west.tif")
    np.save(tmp_path / "vector.npy", archive.vectors([first])[0].astype(np.float64))
    monkeypatch.chdir(scenes)
    box = (16.27, 45.13, 16.275, 45.145)
    for options, equivalent in (
        (("--id", first), ById(first)),
        (("--vector", tmp_path / "vector.npy"), archive.vectors([first])[0]),
        (("--scene", west, "--window", "16,8,40,32"), ByWindow(west, window=(16, 8, 40, 32))),
        (("--scene", "west.tif", "--window", "-9,0,40,32"), ByWindow(west, window=(-9, 0, 40, 32))),
        (("--scene", west, "--scene-bbox", ",".join(map(str, box))), ByWindow(west, box)),
        (
            ("--scene", west, "--point", "16.275,45.14", "--size", 320),
            ByWindow(west, point=(16.275, 45.14), size=320),
        ),
        (("--like", f"id:{first}"), Examples([ById(first)])),
        (
            ("--id", first, "--like", f"id:{second}", "--unlike", "east.tif", "--unlike", west),
            Examples([ById(second)], [scenes / "east.tif", scenes / "west.tif"], ById(first)),
        ),
        ((west, "--like", "east.tif"), Examples([scenes / "east.tif"], query=scenes / "west.tif")),
    ):
        hits = found(shell, tiles, *options, "-k", 7)
        wanted = as_json(archive.search(equivalent, 7))
        assert [hit["id"] for hit in hits] == [hit["id"] for hit in wanted], options
        assert np.allclose(*([hit["distance"] for hit in some] for some in (hits, wanted)))
    assert first not in {hit["id"] for hit in found(shell, tiles, "--id", first, "-k", 99)}


def test_filters(shell: Shell, tiles: Path, scenes: Path, tmp_path: Path) -> None:
    archive = rsir.open(tiles)
    records = list(archive.records())
    footprint = next(r.footprint for r in records if "west" in r.source)
    assert footprint is not None
    (tmp_path / "area.geojson").write_text(json.dumps(footprint))
    west, east = str(scenes / "west.tif"), str(scenes / "east.tif")
    for options, equivalent in (
        (("--bbox", "16,45,17,46"), Filter(bbox=(16, 45, 17, 46))),
        (("--bbox=-3,45,17,46",), Filter(bbox=(-3, 45, 17, 46))),
        (("--bbox", "-3,45,17,46"), Filter(bbox=(-3, 45, 17, 46))),
        (("--within", tmp_path / "area.geojson"), Filter(geometry=footprint)),
        (("--datetime", "2024-05-02"), Filter(where=f"source = '{east}'")),
        (("--datetime", "../2024-05-01"), Filter(where=f"source = '{west}'")),
        (("--datetime", "2024-05-01T10:00:01Z/.."), Filter(where=f"source = '{east}'")),
        (("--where", "width = 32 AND source LIKE '%east%'"), Filter(where=f"source = '{east}'")),
        (("--class", "none", "--class", "other"), Filter(classes=["none", "other"])),
        (("--source", west), Filter(where=f"source = '{west}'")),
        (("--source", west, "--source", east), None),
        (("--source", west, "--where", "datetime > '2025-01-01'"), Filter(where="id = ''")),
    ):
        hits = found(shell, tiles, "--id", records[0].id, "-k", 99, *options)
        assert hits == as_json(archive.search(ById(records[0].id), 99, filter=equivalent)), options


def test_classes_are_the_folders(shell: Shell, images: Path, query: Path) -> None:
    hits = found(shell, images, query, "-k", 99, "--class", "sand", "--class", "roof")
    assert len(hits) == 24
    assert {hit["properties"]["class"] for hit in hits} == {"sand", "roof"}


def test_other_search_options(shell: Shell, images: Path, query: Path) -> None:
    archive = rsir.open(images)
    everything = archive.search(query, 48)
    cut = everything[20].percentile
    hits = found(shell, images, query, "-k", 48, "--min-percentile", cut)
    assert [h["id"] for h in hits] == [h.id for h in everything if h.percentile >= cut]
    assert 20 < len(hits) < 48
    diverse = found(shell, images, query, "-k", 48, "--diverse")
    assert diverse == as_json(archive.search(query, 48, diverse=True))
    done = shell("search", images, query, "--ranking", archive.metric, "--recall", "-k", 7)
    assert f"recall@7 of {archive.metric}: 1.0000" in done.err


def test_recall_of_plain_hamming(
    shell: Shell, coloured_classes: Path, query: Path, tmp_path: Path
) -> None:
    train = ("train", "dah", "--data", coloured_classes, "--out", tmp_path / "m", "--epochs", 0)
    assert shell(*train, *TRAIN, "--bits", 12).status == 0
    index = ("index", tmp_path / "a", coloured_classes, "--model", tmp_path / "m")
    assert shell(*index).status == 0
    archive = rsir.open(tmp_path / "a")
    exact = {hit.id for hit in archive.search(query, 9)}
    plain = {hit.id for hit in archive.search(query, 9, ranking="hamming")}
    done = shell(
        "search", tmp_path / "a", query, "-k", 9, "--ranking", "hamming", "--recall", "--format",
        "json",
    )  # fmt: skip
    assert {hit["id"] for hit in json.loads(done.out)} == plain
    assert f"recall@9 of hamming: {len(exact & plain) / 9:.4f}" in done.err
    # The bytes of a code, as the archive stores them, are a query too.
    row = next(iter(archive.records())).id
    np.save(tmp_path / "code.npy", archive.vectors([row])[0])
    assert row in {hit["id"] for hit in found(shell, tmp_path / "a", "--vector",
                                              tmp_path / "code.npy", "-k", 48)}  # fmt: skip


def test_nothing_looks_like_it(shell: Shell, tiles: Path, tmp_path: Path) -> None:
    archive = rsir.open(tiles)
    some = next(iter(archive.records())).id
    # A vector opposite to the mean of all images.
    records = [record.id for record in archive.records()]
    np.save(tmp_path / "far.npy", -archive.vectors(records).mean(axis=0))
    far = ("search", tiles, "--vector", tmp_path / "far.npy", "--format", "json")
    assert len(json.loads(shell(*far).out)) == 10
    done = shell(*far, "--min-percentile", "90")
    assert (done.status, json.loads(done.out)) == (0, [])
    assert "nothing here looks like the query" in done.err
    done = shell(*far, "--min-percentile", "99.99999")
    assert (done.status, done.out) == (2, "")
    assert "too small for a percentile" in done.err
    done = shell("search", tiles, "--id", some, "--where", "1 = 2", "--format", "json")
    assert (done.status, json.loads(done.out)) == (0, [])
    assert "0 images searched" in done.err
    assert "looks like" not in done.err
    for form in ("table", "csv", "geojson", "html"):
        done = shell("search", tiles, "--id", some, "--where", "1 = 2", "--format", form)
        assert done.status == 0
        assert done.out


def test_an_earlier_version(shell: Shell, copy: Path) -> None:
    archive = rsir.open(copy)
    version = archive.info()["version"]
    first, second, *rest = (record.id for record in archive.records())
    before = found(shell, copy, "--id", first, "-k", 99)
    archive.delete([second])
    assert len(found(shell, copy, "--id", first, "-k", 99)) == len(rest)
    assert found(shell, copy, "--id", first, "-k", 99, "--version", version) == before
    done = shell("search", copy, "--id", first, "--version", 99)
    assert (done.status, "version 99" in done.err) == (1, True)


def test_a_table(shell: Shell, tiles: Path, images: Path, query: Path, tmp_path: Path) -> None:
    done = shell("search", images, query, "-k", 3)
    assert done.status == 0
    lines = done.out.splitlines()
    numbers = ["rank", "score", "distance", "percentile"]
    assert lines[0].split() == [*numbers, "class", "id", "image"]
    for line, hit in zip(lines[2:], rsir.open(images).search(query, 3), strict=True):
        # Whole, however long.
        assert line.split()[4:] == [hit.properties["class"], hit.id, hit.source]
        assert line.split()[1] == f"{hit.score:.4f}"
    assert "48 images searched" in done.err
    written = shell("search", images, query, "-k", 3, "--out", tmp_path / "hits.txt")
    assert (written.out, (tmp_path / "hits.txt").read_text()) == ("", done.out)
    some = next(iter(rsir.open(tiles).records())).id
    hits = found(shell, tiles, "--id", some)
    shown = shell("search", tiles, "--id", some).out.splitlines()[2:]
    for line, hit in zip(shown, hits, strict=True):
        assert line.endswith("[{},{},{},{}]".format(*hit["properties"]["window"]))


def test_names_are_not_taken_for_markup(
    shell: Shell, model: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "[red]lakes"
    folder.mkdir()
    image = folder / "lake00.png"
    image.write_bytes((coloured_classes / "lake" / "lake00.png").read_bytes())
    assert shell("index", tmp_path / "a", folder, "--model", model).status == 0
    assert "[red]lakes" in shell("search", tmp_path / "a", image).out


def test_geojson_opens_in_gis(shell: Shell, tiles: Path, tmp_path: Path) -> None:
    some = next(iter(rsir.open(tiles).records())).id
    hits = found(shell, tiles, "--id", some)
    file = tmp_path / "hits.geojson"
    done = shell("search", tiles, "--id", some, "--format", "geojson", "--out", file)
    assert (done.status, done.out) == (0, "")
    rows = geopandas.read_file(file)
    assert rows.crs == "EPSG:4326"
    assert list(rows["id"]) == [hit["id"] for hit in hits]
    assert list(rows["rank"]) == list(range(1, 11))
    for name in ("score", "distance", "percentile", "source"):
        assert list(rows[name]) == [hit[name] for hit in hits]
    for (_, row), hit in zip(rows.iterrows(), hits, strict=True):
        assert row.geometry.equals_exact(shape(hit["footprint"]), 1e-9)
        assert list(row["window"]) == hit["properties"]["window"]
    printed = shell("search", tiles, "--id", some, "--format", "geojson").out
    assert json.loads(printed) == json.loads(file.read_text())


def test_csv_is_read_back(shell: Shell, tiles: Path, images: Path, query: Path) -> None:
    some = next(iter(rsir.open(tiles).records())).id
    for archive, arguments in ((tiles, ("--id", some)), (images, (query,))):
        hits = found(shell, archive, *arguments)
        text = shell("search", archive, *arguments, "--format", "csv").out
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert len(rows) == len(hits)
        for rank, (row, hit) in enumerate(zip(rows, hits, strict=True), 1):
            assert row["rank"] == str(rank)
            assert (row["id"], row["source"]) == (hit["id"], hit["source"])
            assert float(row["distance"]) == hit["distance"]
            assert json.loads(row["properties"]) == hit["properties"]
            assert row["datetime"] == (hit["datetime"] or "")
            if hit["footprint"] is None:
                assert row["footprint"] == ""
            else:
                assert wkt.loads(row["footprint"]).equals_exact(shape(hit["footprint"]), 1e-9)


def test_odd_hits_as_features_and_rows() -> None:
    odd = 'a,"b"\r\nc'
    properties = {"rank": 7, "properties.rank": 8, "source": None, odd: {"x": [1, "é"]}}
    hits = [Hit("1", 0.5, 0.5, odd, None, None, properties), Hit("2", 0.25, 0.75, "s3://b/k")]
    first, second = collection(hits)["features"]
    assert first["properties"] == {
        "rank": 1, "score": 0.5, "distance": 0.5, "percentile": None, "source": odd,
        "datetime": None, "properties.rank": 7, "properties.properties.rank": 8,
        "properties.source": None, odd: {"x": [1, "é"]},
    }  # fmt: skip
    assert (second["geometry"], second["id"]) == (None, "2")
    rows = list(csv.DictReader(io.StringIO(table(hits), newline="")))
    assert rows[0]["source"] == odd
    assert json.loads(rows[0]["properties"]) == properties
    assert collection([])["features"] == []
    assert len(table([]).splitlines()) == 1


def test_a_page_shows_the_query_and_every_hit(
    shell: Shell, tiles: Path, images: Path, scenes: Path, query: Path, tmp_path: Path
) -> None:
    page = tmp_path / "hits.html"

    def pictures(archive: Path, *arguments: Any) -> tuple[int, str]:
        done = shell("search", archive, *arguments, "--format", "html", "--out", page)
        assert (done.status, done.out) == (0, ""), done.err
        text = page.read_text()
        assert text.startswith("<!doctype html>")
        return text.count("data:image/jpeg;base64,"), text

    assert pictures(images, query)[0] == 11
    some = next(iter(rsir.open(tiles).records())).id
    count, text = pictures(tiles, "--id", some)
    assert (count, f"Query: the tile {some}" in text) == (11, True)
    window = ("--scene", scenes / "west.tif", "--window", "0,0,32,32")
    count, text = pictures(tiles, *window)
    assert (count, "Query: a window of" in text) == (11, True)
    assert pictures(tiles, "--like", f"id:{some}", "-k", 3)[0] == 3
    count, text = pictures(tiles, *window, "--like", f"id:{some}", "-k", 3)
    assert count == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--class", "foo"), r"no image has the class foo; there are field, lake, roof, sand"),
        (("--bbox", "0,0,1,1"), "no image of the archive has a place"),
        (("--datetime", "2024-W18"), "no image of the archive has a date"),
        (("--source", "nothing"), "no image meets the condition of --where or comes from that"),
    ],
)
def test_a_filter_that_selects_nothing_says_what_there_is(
    shell: Shell, images: Path, query: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    for command in (("search", images, query), ("export", images, tmp_path / "a.geojson")):
        done = shell(*command, *options)
        assert re.search(says, done.err), (command, done)


def test_a_filter_beside_the_scenes_says_where_and_when_they_are(
    shell: Shell, tiles: Path, query: Path
) -> None:
    away = shell("search", tiles, query, "--bbox=-60,-60,-59,-59").err
    bounds = [source.bounds for source in rsir.open(tiles).sources()]
    west = min(box[0] for box in bounds if box is not None)
    assert f"no image lies in that area; the archive covers {west:.5g}," in away
    times = sorted(record.datetime for record in rsir.open(tiles).records() if record.datetime)
    early = shell("search", tiles, query, "--datetime", "../1990").err
    assert f"the images are from {times[0]:%Y-%m-%d} to {times[-1]:%Y-%m-%d}" in early
    year = f"{times[0]:%Y}"
    where = ("--where", "width > 0", "--datetime", year)
    assert "no image" not in shell("search", tiles, query, *where).err


def test_the_name_of_the_output_decides_its_format(
    shell: Shell, images: Path, query: Path, tmp_path: Path
) -> None:
    starts = {"a.html": "<!doctype html>", "a.json": "[", "a.geojson": '{"type"', "a.csv": "rank,"}
    for name, start in (starts | {"a.txt": "  rank"}).items():
        done = shell("search", images, query, "--out", tmp_path / name)
        assert done.status == 0, done.err
        assert (tmp_path / name).read_text().lstrip("\n").startswith(start), name
    shell("search", images, query, "--out", tmp_path / "b.html", "--format", "json")
    assert json.loads((tmp_path / "b.html").read_text())
    assert re.search(r"images searched in \d+ ms, query encoded in \d+ ms", done.err)


def test_a_page_of_a_window_looks_its_scene_up_once(
    shell: Shell, tiles: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(rsir.open(tiles).store)
    looked_up, records = [], kind.records

    def spy(self: Any, filter: Any = None) -> Any:
        looked_up.append(filter)
        return records(self, filter)

    monkeypatch.setattr(kind, "records", spy)
    window = ("--scene", scenes / "west.tif", "--window", "0,0,32,32")
    page = tmp_path / "hits.html"
    done = shell("search", tiles, *window, "--format", "html", "--out", page)
    assert (done.status, len(looked_up)) == (0, 1), done.err


def test_defaults_are_those_of_python() -> None:
    shown, meant = inspect.signature(search).parameters, inspect.signature(Archive.search)
    for name in ("k", "ranking", "diverse", "min_percentile"):
        assert shown[name].default == meant.parameters[name].default


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("D", "Q"), 1, "no archive"),
        (("nowhere", "Q"), 1, "nowhere"),
        (("A",), 2, "give one query"),
        (("A", "Q", "--id", "x"), 2, "give one query"),
        (("A", "--unlike", "Q"), 2, "give one query"),
        (("A", "nowhere.png"), 1, "nowhere.png"),
        (("A", "T"), 1, "not an image"),
        (("A", "Q", "-k", "0"), 2, "k must be"),
        (("A", "Q", "-k", "many"), 2, "'-k'"),
        (("A", "Q", "--format", "xml"), 2, "xml"),
        (("A", "--id", "x"), 1, "'x'"),
        (("A", "--like", "id:x"), 1, "'x'"),
        (("A", "Q", "--like", "nowhere.png"), 1, "nowhere.png"),
        (("A", "--vector", "nowhere.npy"), 1, "nowhere.npy"),
        (("A", "--vector", "T"), 1, ".npy"),
        (("A", "--vector", "3D"), 2, "one axis"),
        (("A", "--vector", "short"), 2, "3"),
        (("A", "--vector", "pickle"), 1, "pickle"),
        (("A", "Q", "--bbox", "1,2,3"), 2, "W,S,E,N"),
        (("A", "Q", "--bbox", "1,2,3,100"), 2, "within -90 and 90"),
        (("A", "Q", "--datetime", "May"), 2, "--datetime"),
        (("A", "Q", "--within", "nowhere.geojson"), 1, "nowhere.geojson"),
        (("A", "Q", "--within", "T"), 2, "GeoJSON"),
        (("A", "Q", "--where", "DROP TABLE items"), 2, "not a condition"),
        (("A", "Q", "--where", "id = (SELECT 1)"), 2, "allowed"),
        (("A", "Q", "--ranking", "magic"), 2, "magic"),
        (("A", "Q", "--recall"), 2, "--ranking"),
        (("A", "Q", "--min-percentile", "100"), 2, "[0, 100)"),
        (("A", "Q", "--min-percentile", "nan"), 2, "[0, 100)"),
        (("A", "Q", "--version", "x"), 2, "--version"),
        (("A", "Q", "--version", "-1"), 1, "-1"),
        (("A", "--window", "0,0,9,9"), 2, "--scene"),
        (("S", "--scene", "nowhere.tif", "--window", "0,0,9,9"), 2, "nowhere.tif"),
        (("S", "--scene", "W"), 2, "give one of them"),
        (("S", "--scene", "W", "--window", "0,0,9,9", "--point", "1,1", "--size", "9"), 2, "one"),
        (("S", "--scene", "W", "--point", "16.3,45.1"), 2, "give one of them"),
        (("S", "--scene", "W", "--point", "16.3,45.1", "--size", "0"), 2, "size"),
        (("S", "--scene", "W", "--point", "16.3,45.1", "--size", "nan"), 2, "size"),
        (("S", "--scene", "W", "--point", "nan,45.1", "--size", "9"), 2, "--point"),
        (("S", "--scene", "W", "--point", "0,0", "--size", "9"), 2, "not in"),
        (("S", "--scene", "W", "--scene-bbox", "0,0,1,1"), 2, "not in"),
        (("S", "--scene", "W", "--scene-bbox", "0,1,1,0"), 2, "box"),
        (("S", "--scene", "W", "--window", "500,0,9,9"), 2, "not in"),
        (("S", "--scene", "W", "--window", "0,0,-9,9"), 2, "not in"),
        (("S", "--scene", "W", "--window", "0,0,9"), 2, "C,R,W,H"),
        (("S", "--scene", "W", "--window", "0,0,1.5,9"), 2, "whole pixels"),
        (("A", "Q", "--format", "html", "--out", "text.png/hits.html"), 1, "text.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_a_message_and_a_status(
    arguments: tuple[str, ...],
    status: int,
    message: str,
    shell: Shell,
    images: Path,
    tiles: Path,
    scenes: Path,
    query: Path,
    coloured_classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    np.save("3d.npy", np.zeros((3, 8, 8), np.uint8))
    np.save("short.npy", np.ones(3, np.float32))
    np.save("pickle.npy", np.array([{}], object), allow_pickle=True)
    values = {"D": coloured_classes, "A": images, "Q": query, "T": tmp_path / "text.png"}
    values |= {"S": tiles, "W": scenes / "west.tif"}
    values |= {"3D": Path("3d.npy"), "short": Path("short.npy"), "pickle": Path("pickle.npy")}
    done = shell("search", *(values.get(argument, argument) for argument in arguments))
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert "Traceback" not in done.err
