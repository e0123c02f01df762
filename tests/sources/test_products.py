"""Folders of Sentinel-2 and Landsat products are no heap of grey scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.errors import DataError
from rsir.sources.find import find_sources
from rsir.sources.products import products

SAFE = "S2B_MSIL2A_20230601T102031_N0509_R065_T32TNT_20230601T150000.SAFE"
LANDSAT = "LC08_L2SP_194027_20230601_20230607_02_T1"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bands = f"{SAFE}/GRANULE/L2A_T32TNT/IMG_DATA/R10m/T32TNT_20230601_B04_10m.jp2"
    write(tmp_path, bands, bands.replace("B04", "B03"), f"{SAFE}/manifest.safe")
    write(tmp_path / "landsat", *(f"{LANDSAT}_{part}" for part in ("SR_B4.TIF", "SR_B3.TIF")))
    write(tmp_path / "landsat", f"{LANDSAT}_QA_PIXEL.TIF", f"{LANDSAT}_MTL.txt")
    write(tmp_path / "landsat", "other.tif", "LC09_L2SP_194027_B4.TIF")
    return tmp_path


def test_a_product_is_listed_once_with_what_to_do(folder: Path) -> None:
    found = find_sources([folder])
    rest = {"other.tif", "LC09_L2SP_194027_B4.TIF"}
    assert {Path(source.uri).name for source in found.sources} == rest
    reasons = {Path(each.uri).name: each.reason for each in found.unusable}
    assert set(reasons) == {SAFE, f"{LANDSAT}_MTL.txt"}
    assert f"stac sentinel2 create-item {folder / SAFE} ITEMS" in reasons[SAFE]
    assert f"RSIR_FOLDERS={folder / SAFE} rsir index" in reasons[SAFE]
    metadata = folder / "landsat" / f"{LANDSAT}_MTL.txt"
    assert f"stac landsat create-item --mtl {metadata} --output ITEMS" in reasons[metadata.name]
    # Counted among the other files, so that nothing vanishes.
    assert found.ignored == {".jp2": 2, ".safe": 1, ".tif": 3, ".txt": 1}


def test_the_folder_of_a_product_itself(folder: Path) -> None:
    found = find_sources([folder / SAFE])
    assert found.sources == ()
    assert [Path(each.uri).name for each in found.unusable] == [SAFE]


def test_a_band_that_is_named_outright_is_a_scene(folder: Path) -> None:
    band = folder / "landsat" / f"{LANDSAT}_SR_B4.TIF"
    assert [source.uri for source in find_sources([band]).sources] == [str(band)]
    with pytest.raises(DataError, match="no such file"):
        find_sources([folder / "none"])


def test_names_that_only_resemble_products() -> None:
    names = ["a/S2.tif", "a/S2_SAFE/b.tif", "a/LC08_x_MTL.tif", "a/LC08_x_B4.TIF", "a/x_MTL.txt"]
    assert products([Path(name) for name in names]) == {}
    assert products([]) == {}
