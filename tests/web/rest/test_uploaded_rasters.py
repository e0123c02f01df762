"""Rasters of any bands and depth are queries of REST, as in Python and the shell."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from starlette.testclient import TestClient

from rsir.archive import Archive
from rsir.archive.search.query import ByFile, Examples
from rsir.errors import UsageError
from rsir.scenes.tiling import Tiling
from rsir.web.app import create_app
from rsir.web.client import RemoteArchive
from tests.support.colour_encoder import ColourEncoder
from tests.web.rest.test_search import same
from tests.web.served import World, problem, upload

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]

BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")


class SixBands(ColourEncoder):
    bands = BANDS

    def _features(self, image: np.ndarray) -> np.ndarray:
        features = image.mean(axis=(1, 2)) / 255
        return np.concatenate([features, features**2, np.zeros(12)])


def write(path: Path, seed: int, dtype: str = "uint16", driver: str = "GTiff") -> Path:
    """A raster of six bands with their names."""
    random = np.random.default_rng(seed)
    levels = random.uniform(300, 2500, (6, 1, 1))
    pixels = (levels * random.uniform(0.9, 1.1, (6, 80, 90))).astype(dtype)
    with rasterio.open(
        path, "w", driver=driver, count=6, width=90, height=80, dtype=dtype, crs="EPSG:32633",
        transform=Affine(10, 0, 600_000 + 10_000 * seed, 0, -10, 5_000_000),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
        dataset.descriptions = BANDS
    return path


@dataclass(frozen=True)
class Six:
    archive: Archive
    http: TestClient
    files: list[Path]


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Six]:
    folder = tmp_path_factory.mktemp("six")
    files = [write(folder / f"{seed}.tif", seed) for seed in range(6)]
    archive = Archive.create(folder / "archive", SixBands())
    archive.add(files, tiling=Tiling(size=128, bands=BANDS, min_valid=0))
    assert len(archive) == 6
    with TestClient(create_app({"six": archive}, page=False)) as http:
        yield Six(archive, http, files)


def test_a_scene_of_16_bits(http: TestClient, world: World) -> None:
    answer = upload(http, world.scene.read_bytes(), k=4)
    assert answer.status_code == 200, answer.text
    same(answer.json(), world.land.search(world.scene, 4))


def test_by_bands_and_a_stretch(http: TestClient, world: World) -> None:
    bands = ["red=3", "green=2", "blue=1"]
    answer = upload(http, world.scene.read_bytes(), k=4, bands=bands, stretch="range:0,3000")
    same(answer.json(), world.land.search(ByFile(world.scene, bands, "range:0,3000"), 4))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "uint8"])
def test_six_bands(six: Six, tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "query.tif", 3, dtype)
    answer = upload(six.http, path.read_bytes(), archive="six", k=3)
    assert answer.status_code == 200, answer.text
    same(answer.json(), six.archive.search(path, 3))
    if dtype == "uint16":
        assert answer.json()["hits"][0]["source"] == str(six.files[3])


def test_the_client_sends_rasters(six: Six) -> None:
    remote = RemoteArchive(six.http, "six")
    queries: list[Any] = [
        six.files[2],
        ByFile(six.files[2], BANDS, "range:0,3000"),
        Examples([ByFile(six.files[2], BANDS)], [ByFile(six.files[4], BANDS)]),
    ]
    for query in queries:
        found, expected = remote.search(query, 5), six.archive.search(query, 5)
        assert [hit.id for hit in found] == [hit.id for hit in expected]
        np.testing.assert_array_equal(found.distances, expected.distances)
    other = ByFile(six.files[1], BANDS, "range:0,1")
    with pytest.raises(UsageError, match="all files by the same bands"):
        remote.search(Examples([ByFile(six.files[2], BANDS)], [other]), 5)


def test_bands_that_do_not_fit(six: Six, http: TestClient, world: World) -> None:
    raster, scene = six.files[0].read_bytes(), world.scene.read_bytes()
    for answer in (
        upload(http, raster),
        upload(http, scene, bands=["B99"]),
        upload(http, scene, bands=[]),
        upload(http, scene, stretch="magic"),
        upload(http, scene, bands=["red"] * 65),
        upload(six.http, scene, archive="six"),
    ):
        said = problem(answer, 422, "usage")["detail"]
        assert "rsir-" not in said
        assert "--bands" not in said


def test_hostile_uploads_are_refused_and_leave_nothing(
    six: Six, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    raster = six.files[0].read_bytes()
    secret = tmp_path / "secret.tif"
    write(secret, 9)
    vrt = (
        f'<VRTDataset rasterXSize="90" rasterYSize="80"><VRTRasterBand dataType="UInt16" band="1">'
        f"<Description>B02</Description><SimpleSource><SourceFilename>{secret}</SourceFilename>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for data in (
        b"", b"x", raster[: len(raster) // 2], raster[:300], vrt.encode(),
        b"\x89HDF\r\n\x1a\n" * 99, b"CDF\x01" + bytes(400), b'{"type": "FeatureCollection"}',
        b"/vsicurl/http://127.0.0.1/a.tif", b"II*\0\x08\0\0\0" + bytes(200),
    ):  # fmt: skip
        answer = upload(six.http, data, archive="six", k=1)
        said = problem(answer, 422, "image")["detail"]
        assert str(folder) not in said
        assert "secret" not in said
    assert list(folder.iterdir()) == []
