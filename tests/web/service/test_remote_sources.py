"""Imported records may name any address; the service reads there only with `allow_remote`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from rsir.archive import Archive
from rsir.archive.exchange.imports import import_parquet
from rsir.errors import ImageError
from rsir.web.app import create_app
from rsir.web.service.scenes import scene_id
from rsir.web.service.settings import ServiceSettings
from tests.support.colour_encoder import ColourEncoder
from tests.web.served import problem, recording_server


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A web server that is also the object store of this machine; see `recording_server`."""
    with recording_server() as (url, requested):
        host = url.removeprefix("http://")
        for name, value in {
            "no_proxy": "127.0.0.1",
            "HERE": url,
            "AWS_S3_ENDPOINT": host,  # GDAL's
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_NO_SIGN_REQUEST": "YES",
            "AWS_ENDPOINT_URL": url,  # pyarrow's
        }.items():
            monkeypatch.setenv(name, value)
        yield url, requested


def imported(
    folder: Path,
    sources: dict[str, str],
    *,
    tiled: bool,
    bands: Sequence[str] = ("red=1", "green=2", "blue=3"),
) -> Archive:
    """An archive of records imported from GeoParquet; sources: by id."""
    count = len(sources)
    columns: dict[str, Any] = {
        "id": list(sources),
        "source": list(sources.values()),
        "embedding": list(np.ones((count, 16), np.float32)),
    }
    if tiled:
        columns |= {
            "window": [[0, 0, 9, 9]] * count,
            "bands": [list(bands)] * count,
            "stretch": ["none"] * count,
        }
    pq.write_table(pa.table(columns), folder / "records.parquet")
    archive = Archive.create(folder / "archive", ColourEncoder())
    fingerprint = archive.fingerprint
    assert (
        import_parquet(archive, folder / "records.parquet", fingerprint=fingerprint).added == count
    )
    return archive


@pytest.mark.slow
@pytest.mark.parametrize("tiled", [False, True])
def test_only_with_allow_remote_does_the_service_read_other_machines(
    tmp_path: Path, remote: tuple[str, list[str]], tiled: bool
) -> None:
    url, requested = remote
    sources = {
        "web": f"{url}/a.tif",
        "store": "s3://bucket/b.tif",
        "item": f"{url}/items.json#c",
        "gdal": f"/vsicurl/{url}/d.tif",
        "gdal-store": "/vsis3/bucket/e.tif",
    }
    archive = imported(tmp_path, sources, tiled=tiled)

    def answers(http: TestClient) -> Iterator[tuple[str, Any]]:
        for id, source in sources.items():
            scene = scene_id(source)
            window = {"scene": scene, "window": [0, 0, 9, 9]}
            yield id, http.get(f"/api/archives/a/items/{id}/thumbnail")
            yield id, http.get(f"/api/archives/a/scenes/{scene}")
            yield id, http.get(f"/api/archives/a/scenes/{scene}/tiles/0/0/0.png")
            yield id, http.post("/api/archives/a/search", json={"query": window})
            yield id, http.post("/api/archives/a/search", json={"like": [window]})

    with TestClient(create_app({"a": archive}, ServiceSettings(), page=False)) as http:
        for id, answer in answers(http):
            if id.startswith("gdal"):  # a path to rsir, without a file
                assert answer.status_code in (404, 410, 422), answer.text
            else:
                problem(answer, 403, "forbidden")
        listed = http.get("/api/archives/a/items").json()["items"]
        assert {item["id"]: item["source"] for item in listed} == sources
    assert requested == []
    with TestClient(
        create_app({"a": archive}, ServiceSettings(allow_remote=True), page=False)
    ) as http:
        for _, answer in answers(http):
            assert answer.status_code in (404, 410, 422), answer.text
    assert {path.partition("?")[0] for path in requested} >= (
        {"/a.tif", "/bucket/b.tif", "/items.json"} if tiled else {"/a.tif"}
    )
    assert not any(path.startswith(("/d.tif", "/bucket/e.tif")) for path in requested)


def test_a_local_archive_reads_remote_scenes_but_no_remote_images(
    tmp_path: Path, remote: tuple[str, list[str]]
) -> None:
    url, requested = remote
    (tmp_path / "whole").mkdir()
    whole = imported(tmp_path / "whole", {"web": f"{url}/a.tif"}, tiled=False)
    with pytest.raises(ImageError, match="not a file on this machine"):
        whole.thumbnail("web")
    assert requested == []
    (tmp_path / "tiled").mkdir()
    tiled = imported(tmp_path / "tiled", {"web": f"{url}/a.tif"}, tiled=True)
    with pytest.raises(ImageError):
        tiled.thumbnail("web")
    assert requested


def vrt(name: str, more: str = "") -> str:
    """A VRT whose only band is a band of another file."""
    return (
        '<VRTDataset rasterXSize="40" rasterYSize="30"><VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
        f"<SourceBand>1</SourceBand></SimpleSource>{more}</VRTRasterBand></VRTDataset>"
    )


def item(href: str, **others: str) -> dict[str, Any]:
    """A STAC item with an asset in the role "visual", and others in the role "thumbnail"."""
    assets: dict[str, Any] = {"v": {"href": href, "type": "image/tiff", "roles": ["visual"]}}
    for key, other in others.items():
        assets[key] = {"href": other, "type": "image/png", "roles": ["thumbnail"]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "one", "geometry": None, "links": [],
        "properties": {"datetime": "2024-05-06T07:08:09Z"}, "assets": assets,
    }  # fmt: skip


def local_files(folder: Path, url: str) -> dict[str, dict[str, str]]:
    """Sources in a folder by id, by kind: VRTs (forbidden), images whose sidecar files lead
    elsewhere (refused), STAC items with files on other machines (remote), and all others (read).
    """
    pixels = np.random.default_rng(0).integers(1, 255, (30, 40)).astype(np.uint8)
    for name in ("here.tif", "overviews.tif", "sidecar.tif"):
        Image.fromarray(pixels).save(folder / name)
    esri = '<PAMDataset xmlns:x="http://www.esri.test/schemas"><PAMRasterBand band="1"/>'
    (folder / "here.tif.aux.xml").write_text(esri + "</PAMDataset>")
    notes = '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
    notes += f"/vsicurl/{url}/o.tif</MDI></Metadata></PAMDataset>"
    (folder / "overviews.tif.aux.xml").write_text(notes)
    hidden = url.replace("http", "&#104;ttp").replace("//", "&#47;/")
    texts = {
        "plain.vrt": vrt(f"{url}/1.tif"),
        "curl.vrt": vrt(f"/vsicurl/{url}/2.tif"),
        "hidden.vrt": vrt(f"/vsicurl/{hidden}/3.tif"),
        "inner": vrt(f"/vsicurl/{url}/4.tif"),
        "nested.vrt": vrt("inner"),
        "named.tif": vrt(f"/vsicurl/{url}/5.tif"),
        "sidecar.tif.ovr": vrt(f"/vsicurl/{url}/7.tif"),
        "here.vrt": vrt("here.tif"),
        "twice.vrt": vrt("here.vrt"),
        "self.vrt": vrt("self.vrt"),
        "remote.json": json.dumps(item(f"{url}/6.tif")),
        "preview.json": json.dumps(item("here.tif", p=f"{url}/p.png")),
        "of-vrt.json": json.dumps(item("nested.vrt")),
        "here.json": json.dumps(item("here.tif")),
        "list.geojson": json.dumps(
            {"type": "FeatureCollection", "features": [item(f"{url}/a.tif")]}
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    kinds: dict[str, tuple[str, ...]] = {
        "forbidden": (
            "plain.vrt", "curl.vrt", "hidden.vrt", "nested.vrt", "named.tif", "here.vrt",
            "twice.vrt", "self.vrt", "of-vrt.json",
        ),
        "refused": ("overviews.tif", "sidecar.tif"),
        "remote": ("remote.json", "preview.json", "list.geojson#one"),
        "read": ("here.tif", "here.json"),
    }  # fmt: skip
    return {kind: {name: str(folder / name) for name in names} for kind, names in kinds.items()}


@pytest.mark.slow
def test_local_files_that_name_remote_files_are_not_read(
    tmp_path: Path, remote: tuple[str, list[str]]
) -> None:
    url, requested = remote
    kinds = local_files(tmp_path, url)
    sources = {id: source for kind in kinds.values() for id, source in kind.items()}
    archive = imported(tmp_path, sources, tiled=True, bands=["red=1", "green=1", "blue=1"])

    def answers(http: TestClient, id: str) -> list[Any]:
        scene = scene_id(sources[id])
        window = {"scene": scene, "window": [0, 0, 9, 9]}
        return [
            http.get("/api/archives/a/items/" + quote(id, safe="") + "/thumbnail"),
            http.get(f"/api/archives/a/scenes/{scene}/tiles/0/0/0.png"),
            http.post("/api/archives/a/search", json={"query": window}),
            http.post("/api/archives/a/search", json={"like": [window]}),
        ]

    with TestClient(create_app({"a": archive}, ServiceSettings(), page=False)) as http:
        for id in (*kinds["forbidden"], *kinds["remote"]):
            for answer in answers(http, id):
                problem(answer, 403, "forbidden")
        for id in kinds["refused"]:
            assert {answer.status_code for answer in answers(http, id)} <= {410, 422}, id
        for id in kinds["read"]:
            assert answers(http, id)[0].status_code == 200, id
    assert requested == []
    allowing = ServiceSettings(allow_remote=True)
    with TestClient(create_app({"a": archive}, allowing, page=False)) as http:
        for id in (*kinds["forbidden"], *kinds["refused"]):
            assert 200 not in [answer.status_code for answer in answers(http, id)], id
            assert requested == [], id
        http.get("/api/archives/a/items/remote.json/thumbnail?size=16")
        assert requested, "remote.json requests nothing, so it tests nothing"
