"""What is named, against what was written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest

from rsir.errors import DataError
from rsir.geo import sources
from rsir.geo.scene import Scene
from rsir.geo.sources import find_sources, is_remote, normal, source


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


def test_a_name_that_is_no_text(tmp_path):
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


def test_a_stac_item(tmp_path):
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


def test_catalogues_are_followed_and_broken_links_are_told(tmp_path):
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


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "Feature"}', '{"type": "Polygon"}'])
def test_json_that_is_no_stac(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        find_sources([tmp_path / "x.json"])


def test_over_http_and_never_to_local_files(write, server, tmp_path):
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
    """A folder stands for the bucket: what is listed is pyarrow's business, what is kept ours."""
    touch(tmp_path, "x/a.tif", "x/y/b.tif", "x/y/c.jp2", "x/y/note.txt", "z/d.tif")
    bucket = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    monkeypatch.setattr(
        sources, "file_system", lambda uri: (bucket, uri.partition("://")[2].strip("/"))
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
