"""`find_sources` and `source`, against the files that the test wrote."""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest
from PIL import Image

from rsir.errors import DataError, UsageError
from rsir.scenes.scene import Scene
from rsir.sources import remote
from rsir.sources.find import document_of, find_sources, source
from rsir.sources.folders import find_images
from rsir.sources.source import is_remote, normal


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(*names, **options):
    return [one.uri for one in find_sources(names, **options).sources]


def item(name: str, assets: dict, **more) -> dict:
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None,
        "properties": {"datetime": "2023-06-01T10:20:30Z", "platform": "sentinel-2b"},
        "links": [], "assets": assets,
    } | more  # fmt: skip


def catalogue(*links: tuple[str, str], kind: str = "Catalog") -> dict:
    more = {
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None, None]]},
        },
    }
    return {
        "type": kind, "stac_version": "1.0.0", "id": "c", "description": "c",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    } | (more if kind == "Collection" else {})  # fmt: skip


def save(path: Path, document) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_files_folders_and_globs(tmp_path):
    touch(tmp_path, "b/2.TIF", "b/c/1.jp2", "b/c/note.txt", "b/.hidden.tif", "a.png", "odd.dat")
    at = tmp_path.as_posix()
    assert found(tmp_path / "b", at + "/a.png", at + "/b/2.TIF") == [
        f"{at}/a.png", f"{at}/b/2.TIF", f"{at}/b/c/1.jp2"
    ]  # fmt: skip
    assert find_sources([tmp_path / "b"]).ignored == {".txt": 1}
    assert found(at + "/odd.dat") == [at + "/odd.dat"]
    assert found(at + "/**/*.jp2") == [at + "/b/c/1.jp2"]
    assert found(at + "/b/[12].*") == [at + "/b/2.TIF"]
    assert found(f"file://{at}/a.png") == [at + "/a.png"]
    assert found(tmp_path, exclude=tmp_path / "b") == [at + "/a.png"]
    touch(tmp_path, "we[i]rd.tif")
    assert found(at + "/we[i]rd.tif") == [at + "/we[i]rd.tif"]
    for missing in ("missing.tif", "missing/*.tif"):
        with pytest.raises(DataError, match=r"missing.*(no such|matches no)"):
            found(f"{at}/{missing}")
    with pytest.raises(DataError, match="cannot read 'ftp'"):
        found("ftp://somewhere/a.tif")


def test_a_name_that_is_not_utf_8(tmp_path):
    (tmp_path / "b\udcff.tif").write_bytes(b"x")
    result = find_sources([tmp_path])
    assert result.sources == ()
    assert "rename" in result.unusable[0].reason
    assert result.unusable[0].uri.encode()


def test_names():
    assert is_remote("s3://bucket/a.tif")
    assert not is_remote("/a/https/b.tif")
    assert normal("s3://b/../a.tif") == "s3://b/../a.tif"
    assert found("https://a.test/x.tif?sig=1", "gs://b/y.tif") == [
        "gs://b/y.tif", "https://a.test/x.tif?sig=1"
    ]  # fmt: skip


def test_a_stac_item(tmp_path, monkeypatch):
    bands = [{"name": "B04", "common_name": "red"}]
    path = save(
        tmp_path / "items" / "one.json",
        item(
            "one",
            {
                "B04": {"href": "../B04.tif", "roles": ["data"], "eo:bands": bands},
                "visual": {"href": str(tmp_path / "tci.tif"), "roles": ["visual"],
                           "type": "image/tiff; application=geotiff"},
                "scl": {"href": "./SCL.jp2", "roles": ["data"]},
                "far": {"href": "s3://b/nir.tif",
                        "bands": [{"name": "8", "eo:common_name": "nir"}]},
                "thumbnail": {"href": "t.png", "roles": ["thumbnail"], "type": "image/png"},
                "metadata": {"href": "m.xml", "roles": ["metadata"]},
            },
        ),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"B04\.tif.*RSIR_FOLDERS"):
        source(path)  # its files are not below its folder
    monkeypatch.setenv("RSIR_FOLDERS", str(tmp_path))
    one = source(path)
    assert find_sources([path]).sources == (one,)
    assert one.uri == str(path)
    assert one.datetime == datetime(2023, 6, 1, 10, 20, 30, tzinfo=UTC)
    assert one.properties == {"stac_id": "one", "platform": "sentinel-2b"}
    assets = {asset.key: asset for asset in one.assets}
    assert {key for key, asset in assets.items() if asset.pixels} == {"B04", "visual", "far"}
    assert assets["B04"].uri == str(tmp_path / "B04.tif")
    assert assets["B04"].bands == (("red", "B04"),)
    assert assets["far"].bands == (("nir", "8"),)
    assert assets["far"].uri == "s3://b/nir.tif"
    assert assets["scl"].uri == str(tmp_path / "items" / "SCL.jp2")
    assert [key for key, asset in assets.items() if asset.visual] == ["visual"]


def test_catalogues_are_followed_and_broken_links_reported(tmp_path):
    pixels = {"data": {"href": "x.tif"}}
    save(
        tmp_path / "catalog.json",
        catalogue(
            ("child", "./a/collection.json"), ("child", "./gone.json"), ("root", "./catalog.json")
        ),
    )
    save(tmp_path / "a" / "collection.json", catalogue(
        ("item", "1.json"), ("item", "2.json"), ("item", "broken.json"), ("item", "empty.json"),
        ("parent", "../catalog.json"), ("child", "../catalog.json"), kind="Collection",
    ))  # fmt: skip
    save(tmp_path / "a" / "1.json", item("1", pixels))
    late = item("2", pixels)
    late["properties"] = {
        "datetime": None, "start_datetime": "2020-01-01T00:00:00Z",
        "end_datetime": "2020-02-01T00:00:00Z",
    }  # fmt: skip
    save(tmp_path / "a" / "2.json", late)
    (tmp_path / "a" / "broken.json").write_text("{")
    save(tmp_path / "a" / "empty.json", item("3", {"m": {"href": "m.xml"}}))
    result = find_sources([tmp_path / "catalog.json"])
    assert [one.uri for one in result.sources] == [str(tmp_path / f"a/{i}.json") for i in (1, 2)]
    assert result.sources[1].datetime == datetime(2020, 1, 1, tzinfo=UTC)
    reasons = {Path(one.uri).name: one.reason for one in result.unusable}
    with pytest.raises(DataError, match=r"empty\.json: has no asset"):
        source(tmp_path / "a" / "empty.json")
    with pytest.raises(DataError, match="not one STAC item"):
        source(tmp_path / "catalog.json")
    assert set(reasons) == {"gone.json", "broken.json", "empty.json"}
    assert "not JSON" in reasons["broken.json"]
    assert "no asset with imagery" in reasons["empty.json"]


def test_a_collection_of_items(write, tmp_path):
    pixels = np.full((3, 20, 30), 7, np.uint8)
    write(pixels, "a.tif")
    features = [item(name, {"data": {"href": "./a.tif"}}) for name in ("p", "q")]
    path = save(tmp_path / "found.geojson", {
        "type": "FeatureCollection", "features": features,
        "links": [{"rel": "next", "href": "https://a.test/2"}],
    })  # fmt: skip
    result = find_sources([path])
    assert [one.uri for one in result.sources] == [f"{path}#p", f"{path}#q"]
    assert "further pages" in result.unusable[0].reason
    with Scene.open(f"{path}#q") as scene:
        assert (scene.read()[0] == pixels).all()
        assert scene.datetime == datetime(2023, 6, 1, 10, 20, 30, tzinfo=UTC)
    with pytest.raises(DataError, match="no item 'r'"):
        source(f"{path}#r")
    with pytest.raises(DataError, match="not one STAC item"):
        source(path)
    assert found(f"{path}#p") == [f"{path}#p"]
    with pytest.raises(DataError, match="no item 'r'"):
        find_sources([f"{path}#r"])


def test_an_invalid_item_of_a_list_is_reported_and_the_others_are_found(tmp_path):
    good = item("p", {"data": {"href": "./a.tif"}})
    late = item("q", {"data": {"href": "./a.tif"}})
    late["properties"]["datetime"] = "yesterday"
    features = [{"type": "Feature", "id": "bare"}, 7, late, good]
    path = save(tmp_path / "x.json", {"type": "FeatureCollection", "features": features})
    result = find_sources([path])
    assert [one.uri for one in result.sources] == [f"{path}#p"]
    assert [one.uri for one in result.unusable] == [f"{path}#{name}" for name in ("bare", 1, "q")]
    assert all("not valid STAC" in one.reason for one in result.unusable)


def test_a_hash_in_a_name(tmp_path):
    """A '#' may be part of a file's or a folder's name, or precede the id of an item."""
    pixels = {"data": {"href": "a.tif"}}
    features = [item(name, pixels) for name in ("p", "q#2", "deep/r")]
    feature_list = {"type": "FeatureCollection", "features": features}
    for name in ("x.json", "x.json#1/items.json", "plain#2/items.json"):
        save(tmp_path / name, feature_list)
    save(tmp_path / "plain#2" / "one.json", item("one", pixels))
    touch(tmp_path, "x.json#1/a.tif", "x.json#p.tif", "plain#2/a.tif")
    at = tmp_path.as_posix()
    for name, wanted in {
        "x.json": ("x.json", ""),
        "x.json#p": ("x.json", "p"),
        "x.json#q#2": ("x.json", "q#2"),
        "x.json#deep/r": ("x.json", "deep/r"),
        "x.json#p.tif": ("x.json#p.tif", ""),
        "x.json#1": ("x.json#1", ""),
        "x.json#1/a.tif": ("x.json#1/a.tif", ""),
        "x.json#1/items.json": ("x.json#1/items.json", ""),
        "plain#2/a.tif": ("plain#2/a.tif", ""),
        "plain#2/items.json#p": ("plain#2/items.json", "p"),
        "gone.json#p": ("gone.json#p", ""),
    }.items():
        assert document_of(f"{at}/{name}") == (f"{at}/{wanted[0]}", wanted[1])
    for name in ("x.json#1/a.tif", "x.json#p.tif", "plain#2/a.tif"):
        assert [a.uri for a in source(f"{at}/{name}").assets] == [f"{at}/{name}"]
    for name in ("plain#2/items.json#q#2", "plain#2/one.json"):
        assert [a.uri for a in source(f"{at}/{name}").assets] == [f"{at}/plain#2/a.tif"]
    assert found(tmp_path / "x.json") == [f"{at}/x.json#{id}" for id in ("deep/r", "p", "q#2")]
    assert found(tmp_path / "x.json#1") == [f"{at}/x.json#1/a.tif"]
    with pytest.raises(DataError, match=r"gone\.json#p: no such file"):
        source(f"{at}/gone.json#p")
    assert document_of("https://a.test/x.json?page=1#p/q") == (
        "https://a.test/x.json?page=1",
        "p/q",
    )
    assert document_of("https://a.test/x.tif#p") == ("https://a.test/x.tif#p", "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "Feature"}', '{"type": "Polygon"}'])
def test_json_that_is_not_stac(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        find_sources([tmp_path / "x.json"])


def test_a_catalogue_over_http_cannot_name_local_files(write, server, tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8)
    write(pixels, "a.tif")
    save(tmp_path / "catalog.json", catalogue(
        ("item", "./i/1.json"), ("item", f"file://{tmp_path}/i/2.json"), ("item", "i/3.json"),
    ))  # fmt: skip
    save(tmp_path / "i" / "1.json", item("1", {"data": {"href": "../a.tif"}}))
    save(tmp_path / "i" / "2.json", item("2", {"data": {"href": "../a.tif"}}))
    save(tmp_path / "i" / "3.json", item("3", {"data": {"href": f"file://{tmp_path}/a.tif"}}))
    result = find_sources([f"{server.url}/catalog.json"])
    (one,) = result.sources
    assert one.uri == f"{server.url}/i/1.json"
    assert one.assets[0].uri == f"{server.url}/a.tif"
    assert [Path(one.uri).name for one in result.unusable] == ["2.json", "3.json"]
    with Scene.open(one.uri) as scene:
        assert (scene.read()[0] == pixels).all()
    with pytest.raises(DataError, match="cannot be fetched"):
        find_sources([f"{server.url}/none.json"])


def test_prefixes_and_globs_of_an_object_store(tmp_path, monkeypatch):
    """A local folder replaces the bucket: pyarrow lists it, our code chooses."""
    touch(tmp_path, "x/a.tif", "x/y/b.tif", "x/y/c.jp2", "x/y/note.txt", "z/d.tif")
    bucket = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    monkeypatch.setattr(
        remote, "file_system", lambda uri: (bucket, uri.partition("://")[2].strip("/"))
    )
    assert found("s3://x/") == ["s3://x/a.tif", "s3://x/y/b.tif", "s3://x/y/c.jp2"]
    assert found("s3://x/*.tif") == ["s3://x/a.tif"]
    assert found("s3://x/**/*.tif") == ["s3://x/a.tif", "s3://x/y/b.tif"]
    assert found("s3://x/y/?.jp2") == ["s3://x/y/c.jp2"]
    assert found("s3://x/one.tif") == ["s3://x/one.tif"]
    with pytest.raises(DataError, match="no scene"):
        found("s3://x/*.png")
    with pytest.raises(DataError, match="cannot be listed"):
        found("s3://missing/")


def test_a_hash_in_names_of_an_object_store(tmp_path, monkeypatch):
    features = [item("p", {"data": {"href": "./a.tif"}})]
    save(tmp_path / "x" / "i.json", {"type": "FeatureCollection", "features": features})
    touch(tmp_path, "x/i.json#1/a.tif")
    bucket = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    monkeypatch.setattr(
        remote, "file_system", lambda uri: (bucket, uri.partition("://")[2].strip("/"))
    )
    monkeypatch.setattr("rsir.sources.stac.file_system", remote.file_system)
    assert document_of("s3://x/i.json#p") == ("s3://x/i.json", "p")
    assert source("s3://x/i.json#p").assets[0].uri == "s3://x/a.tif"
    save(tmp_path / "x" / "y#2" / "i.json", item("p", {"data": {"href": "./b%23#.tif"}}))
    assert source("s3://x/y#2/i.json").assets[0].uri == "s3://x/y#2/b%23#.tif"
    assert document_of("s3://x/i.json#1/a.tif") == ("s3://x/i.json#1/a.tif", "")
    assert found("s3://x/i.json#1/") == ["s3://x/i.json#1/a.tif"]


# Masks and sidecar files


def test_masks_and_sidecars_of_scenes_are_separated(tmp_path):
    touch(
        tmp_path, "a.tif", "a_mask.tif", "a.tif.ovr", "a.tif.msk", "a.tif.aux.xml", "lone_mask.tif"
    )
    at = tmp_path.as_posix()
    reason = f"is a mask of {at}/a.tif; to index it as a scene, name it without that scene"
    for name, ignored in {
        at: {".msk": 1, ".ovr": 1, ".xml": 1},
        f"{at}/*": {".aux.xml": 1, ".msk": 1, ".ovr": 1},
        f"{at}/*.tif": {},
    }.items():
        result = find_sources([name])
        assert [one.uri for one in result.sources] == [f"{at}/a.tif", f"{at}/lone_mask.tif"]
        assert [(one.uri, one.reason) for one in result.masks] == [(f"{at}/a_mask.tif", reason)]
        assert result.ignored == ignored
    assert found(f"{at}/*_mask.tif") == [f"{at}/a_mask.tif", f"{at}/lone_mask.tif"]
    assert found(f"{at}/a.tif.ovr") == [f"{at}/a.tif.ovr"]


def test_pictures_of_several_bands_are_no_masks_whatever_their_names(tmp_path):
    grey, colour = Image.new("L", (4, 4)), Image.new("RGB", (4, 4))
    for name, image in (
        ("desert.jpg", colour), ("desert_cloud.jpg", colour), ("desert_mask.png", grey),
        ("face.tif", colour), ("face_mask.tif", colour), ("face_qa.tif", grey),
    ):  # fmt: skip
        image.save(tmp_path / name)
    result = find_sources([tmp_path])
    assert [Path(one.uri).name for one in result.sources] == [
        "desert.jpg", "desert_cloud.jpg", "face.tif", "face_mask.tif",
    ]  # fmt: skip
    assert [Path(one.uri).name for one in result.masks] == ["desert_mask.png", "face_qa.tif"]


def test_masks_according_to_stac(tmp_path):
    path = save(tmp_path / "one.json", item("one", {
        "visual": {"href": "./b.tif", "roles": ["visual"]},
        "m1": {"href": "./x.tif", "roles": ["cloud-mask"]},
        "m2": {"href": "./y.tif", "roles": ["data-mask"]},
        "SCL": {"href": "./z.tif"}, "qa_pixel": {"href": "./q.tif"},
    }))  # fmt: skip
    touch(tmp_path, "b.tif", "x.tif", "y.tif", "z.tif", "q.tif", "c.tif")
    at = tmp_path.as_posix()
    result = find_sources([tmp_path, path])
    assert [one.uri for one in result.sources] == [
        f"{at}/{n}" for n in ("b.tif", "c.tif", "one.json")
    ]
    assert [one.uri for one in result.masks] == [f"{at}/{n}.tif" for n in "qxyz"]
    assert all(f"mask or preview of {at}/one.json" in one.reason for one in result.masks)


@pytest.mark.parametrize(
    ("template", "masks"),
    [
        (None, set()),
        ("{folder}/{stem}-x.tif", {"s/a-x.tif"}),
        ("{folder}/../m/{stem}.tif", {"m/a.tif"}),
        ("{folder}/all.tif", {"s/all.tif"}),
        ("{folder}/{stem}.tif", set()),  # each would be its own
        ("extra", {"s/k.tif"}),
    ],
)
def test_masks_of_the_tiling_are_reported_by_one_shard(tmp_path, template, masks):
    names = ["s/a.tif", "s/b.tif", "s/a-x.tif", "s/all.tif", "s/k.tif", "m/a.tif", "m/z.tif"]
    touch(tmp_path, *names)
    path = save(tmp_path / "one.json", item("one", {
        "visual": {"href": "./s/b.tif", "roles": ["visual"]}, "extra": {"href": "./s/k.tif"},
    }))  # fmt: skip
    result = find_sources([tmp_path, path]).without_masks(template)
    wanted = {f"{tmp_path}/{name}" for name in names} | {str(path)}
    for parts in ([result], [result.shard(i, 3) for i in range(3)]):
        assert sorted(one.uri for part in parts for one in part.masks) == sorted(
            f"{tmp_path}/{name}" for name in masks
        )
        scenes = sorted(one.uri for part in parts for one in part.sources)
        assert scenes == sorted(wanted - {f"{tmp_path}/{name}" for name in masks})
    assert result.without_masks(template) == result


DEEP = "[" * 100_000
"""JSON that Python's own parser fails on."""


def test_json_that_is_nested_too_deeply(tmp_path, server):
    (tmp_path / "deep.json").write_text(DEEP)
    with pytest.raises(DataError, match=r"deep\.json: .*nested too deeply"):
        find_sources([tmp_path / "deep.json"])
    # Python can parse it, but pystac cannot copy it.
    deep = item("deep", {"data": {"href": "a.tif"}})
    text = json.dumps(deep).replace(
        '"platform"', '"nest": ' + "[" * 800 + "]" * 800 + ', "platform"'
    )
    (tmp_path / "item.json").write_text(text)
    links = [("item", name) for name in ("deep.json", "item.json", "good.json")]
    save(tmp_path / "catalog.json", catalogue(*links))
    save(tmp_path / "good.json", item("good", {"data": {"href": "a.tif"}}))
    for at in (tmp_path, server.url):
        result = find_sources([f"{at}/catalog.json"])
        assert [one.uri for one in result.sources] == [f"{at}/good.json"]
        assert [one.uri for one in result.unusable] == [f"{at}/deep.json", f"{at}/item.json"]
        assert "nested too deeply" in result.unusable[0].reason


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "{", DEEP, '{"type": "FeatureCollection", "features": [{"a": 1}]}']
)
def test_json_beside_scenes_is_not_taken_for_stac(tmp_path, monkeypatch, text):
    touch(tmp_path, "p.png")
    (tmp_path / "meta.json").write_text(text)
    meta, image = str(tmp_path / "meta.json"), str(tmp_path / "p.png")
    for name in (tmp_path, f"{tmp_path}/*"):
        result = find_sources([name])
        assert [one.uri for one in result.sources] == [image]
        assert (result.unusable, result.ignored) == ((), {".json": 1})
    result = find_sources([meta, image])
    assert [one.uri for one in result.sources] == [image]
    assert [one.uri for one in result.unusable] == [meta]
    assert result.unusable[0].reason
    assert meta not in result.unusable[0].reason
    for names in ([meta], [meta, meta]):
        with pytest.raises(DataError, match=r"meta\.json"):
            find_sources(names)
    monkeypatch.setitem(sys.modules, "pystac", None)
    assert find_sources([f"{tmp_path}/*"]).ignored == {".json": 1}


def test_a_broken_item_in_a_glob_is_reported(tmp_path):
    touch(tmp_path, "p.png")
    broken = item("b", {"data": {"href": "a.tif"}})
    broken["properties"]["datetime"] = "yesterday"
    save(tmp_path / "b.json", broken)
    result = find_sources([f"{tmp_path}/*"])
    assert [one.uri for one in result.sources] == [f"{tmp_path}/p.png"]
    assert [one.uri for one in result.unusable] == [f"{tmp_path}/b.json"]
    assert "not valid STAC" in result.unusable[0].reason


def test_a_glob_leaves_out_the_json_of_an_excluded_folder(tmp_path):
    touch(tmp_path, "p.png", "own/archive.json", "own/model/config.json", "other/archive.json")
    result = find_sources([f"{tmp_path}/**/*"], exclude=tmp_path / "own")
    assert [one.uri for one in result.sources] == [f"{tmp_path}/p.png"]
    assert (result.unusable, result.ignored) == ((), {".json": 1})


@pytest.mark.parametrize("link", [{"rel": "item"}, {"rel": "child", "href": 7}, "x", None])
def test_a_broken_link_is_reported(tmp_path, link):
    document = catalogue(("item", "good.json"))
    document["links"].insert(0, link)
    path = save(tmp_path / "catalog.json", document)
    save(tmp_path / "good.json", item("good", {"data": {"href": "a.tif"}}))
    result = find_sources([path])
    assert [one.uri for one in result.sources] == [f"{tmp_path}/good.json"]
    assert [one.uri for one in result.unusable] == [str(path)]
    assert "link 0" in result.unusable[0].reason


def test_what_is_neither_file_nor_folder_is_never_opened(tmp_path, monkeypatch):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "x.fifo")
    os.mkfifo(tmp_path / "y.json")
    (tmp_path / "z.tif").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("s.png")
        for name in (tmp_path, f"{tmp_path}/*"):
            result = find_sources([name])
            assert [one.uri for one in result.sources] == [f"{tmp_path}/a.png"]
            reasons = {Path(found.uri).name: found.reason for found in result.unusable}
            assert sorted(reasons) == ["s.png", "x.fifo", "y.json", "z.tif"]
            assert "a broken link" in reasons.pop("z.tif")
            assert all("is a pipe, a socket or a device" in reason for reason in reasons.values())
    assert find_images([tmp_path]) == ([tmp_path / "a.png"], {})
    for name in ("x.fifo", "y.json"):
        for look in (source, lambda name: find_sources([name]), lambda name: find_images([name])):
            with pytest.raises(DataError, match="is a pipe, a socket or a device"):
                look(tmp_path / name)
    result = find_sources([tmp_path / "x.fifo", tmp_path / "a.png"])
    assert [one.uri for one in result.unusable] == [f"{tmp_path}/x.fifo"]
    save(tmp_path / "catalog.json", catalogue(("item", "y.json")))
    save(tmp_path / "item.json", item("i", {"data": {"href": "x.fifo", "type": "image/tiff"}}))
    assert "a pipe" in find_sources([tmp_path / "catalog.json"]).unusable[0].reason
    with pytest.raises(DataError, match="a pipe"):
        Scene.open(tmp_path / "item.json")


def test_an_empty_name_is_not_this_folder(tmp_path, monkeypatch):
    touch(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    assert found(".") == [f"{tmp_path}/a.png"]
    for names in ([""], ["a.png", ""]):
        with pytest.raises(UsageError, match="name is empty"):
            find_sources(names)


def test_references_with_percent_signs(tmp_path):
    """A reference names the file as written if that file exists, else the decoded name."""
    touch(tmp_path, "my scene.tif", "100%25.tif", "100%.tif", "both%20.tif", "both .tif")
    names = {
        "my%20scene.tif": "my scene.tif",
        "my scene.tif": "my scene.tif",
        "100%25.tif": "100%25.tif",
        "./both%20.tif": "both%20.tif",
        "gone%20.tif": "gone%20.tif",
        f"{tmp_path}/my%20scene.tif": "my scene.tif",
        f"file://{tmp_path}/my%20scene.tif": "my scene.tif",
    }
    assets = {str(i): {"href": href} for i, href in enumerate(names)}
    path = save(tmp_path / "an item.json", item("i", assets))
    uris = [asset.uri for asset in source(path).assets]
    assert uris == [f"{tmp_path}/{name}" for name in names.values()]
    save(tmp_path / "catalog.json", catalogue(("item", "an%20item.json")))
    assert found(tmp_path / "catalog.json") == [str(path)]


@pytest.mark.parametrize(
    ("href", "type", "is_imagery"),
    [
        ("a.tif", "image/tiff; application=geotiff; profile=cloud-optimized", True),
        ("a", "image/vnd.stac.geotiff; cloud-optimized=true", True),
        ("a", "application/geotiff", True),
        ("a", "image/tif", True),
        ("a", "image/geotiff", True),
        ("a", "IMAGE/JP2", True),
        ("a.tif", "application/octet-stream", True),
        ("a.TIFF", "binary/octet-stream", True),
        ("a.tif", None, True),
        ("a.zip", "application/octet-stream", False),
        ("a.tif", "application/json", False),
        ("a.tif", "text/xml", False),
        ("a.h5", "application/x-hdf5", False),
        ("a", "application/pdf", False),
    ],
)
def test_assets_are_imagery_by_type_or_suffix(tmp_path, href, type, is_imagery):
    asset = {"href": f"./{href}"} | ({} if type is None else {"type": type})
    path = save(tmp_path / "one.json", item("one", {"data": asset}))
    result = find_sources([path])
    assert bool(result.sources) == is_imagery
    assert bool(result.unusable) != is_imagery


def test_a_variable_is_refused_with_the_command_that_makes_a_scene_of_it(tmp_path):
    touch(tmp_path, "a.tif")
    for name in ('NETCDF:"/data/f.nc":band', "HDF5:f.h5://band", "netcdf:f.nc:band"):
        with pytest.raises(DataError, match="gdal_translate") as refused:
            find_sources([name])
        assert name in str(refused.value)
        both = find_sources([name, tmp_path / "a.tif"])
        assert [Path(one.uri).name for one in both.sources] == ["a.tif"]
        (reason,) = [each.reason for each in both.unusable]
        assert f"gdal_translate '{name}' OUT.tif" in reason
