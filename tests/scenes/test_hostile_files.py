"""No file of a stranger crashes, hangs, takes much memory, or leads to another file or host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.support.hostile_files import UTM, attacks, by_gdal, damaged, pixels, valid_files, vrt
from tests.support.run_hostile import check_bounds, run_hostile
from tests.web.served import recording_server

pytestmark = pytest.mark.slow


def outcomes(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    return run_hostile("tests.support.read_hostile", "image", files)


def check(outcome: dict[str, Any]) -> None:
    check_bounds(outcome)
    ends = {outcome["as_picture"][0], outcome["as_scene"][0]}
    assert ends <= {"tiles", "damaged", "empty", "refused"}, outcome


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, Any]]:
    folder = tmp_path_factory.mktemp("attacks")
    outside = tmp_path_factory.mktemp("outside") / "secret.tif"
    with rasterio.open(
        outside,
        "w",
        driver="GTiff",
        count=3,
        height=40,
        width=40,
        dtype="uint8",
        crs="EPSG:32633",
        transform=UTM,
    ) as dataset:
        dataset.write(np.full((3, 40, 40), 173, np.uint8))
    with recording_server() as (url, requested):
        verdicts = attacks(folder, outside, url)
        found = outcomes([folder / name for name in verdicts])
        yield verdicts, found, list(requested)


def test_attacks_end_as_they_should(attacked: tuple[Any, Any, Any]) -> None:
    verdicts, found, requested = attacked
    assert found.keys() == verdicts.keys()
    for name, verdict in verdicts.items():
        check(found[name])
        ways = {way: found[name][way] for way in ("as_picture", "as_scene")}
        if verdict == "refused":
            assert ways["as_scene"][0] in ("refused", "damaged"), (name, ways)
            # A picture is read without its sidecar files.
            alone = name in ALONE_IT_IS_A_PICTURE
            assert ways["as_picture"][0] == ("tiles" if alone else "refused"), (name, ways)
        elif verdict == "read":
            assert {end for end, _ in ways.values()} == {"tiles"}, (name, ways)
    assert "list of files at once" in found["both.tif"]["as_scene"][1]
    assert requested == []


ALONE_IT_IS_A_PICTURE = {
    "capital.tif", "capital-mask.tif", "overviews.tif", "by-vrt.tif", "masked.tif", "both.tif",
    "inside.tif", "piped.tif", "endless.tif",
}  # fmt: skip


def test_a_vrt_may_name_files_below_its_folder_and_in_folders_that_the_user_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsir.errors import ImageError
    from rsir.scenes.scene import Scene

    (tmp_path / "here" / "below").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    data = valid_files()["tiled.tif"]
    for place in ("here/below", "there"):
        (tmp_path / place / "a.tif").write_bytes(data)
    inner, outer = tmp_path / "here" / "inner.vrt", tmp_path / "here" / "outer.vrt"
    inner.write_text(vrt("below/a.tif"))
    outer.write_text(vrt(str(tmp_path / "there" / "a.tif"), relative=0))
    with Scene.open(inner, ["1"]) as scene:
        assert scene.read()[0].any()
    with pytest.raises(ImageError, match="RSIR_FOLDERS"):
        Scene.open(outer)
    monkeypatch.setenv("RSIR_FOLDERS", str(tmp_path / "there"))
    with Scene.open(outer, ["1"]) as scene:
        assert scene.read()[0].any()


def test_an_honest_vrt_is_read_with_its_prose_and_the_masks_of_its_files(tmp_path: Path) -> None:
    from rsir.scenes.scene import Scene

    (tmp_path / "a.tif").write_bytes(by_gdal("GTiff", bands=1))
    mask = np.zeros((150, 200), np.uint8)
    mask[:60] = 255
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
        rasterio.open(tmp_path / "a.tif", "r+") as dataset,
    ):
        dataset.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists()
    band = (
        '<VRTRasterBand dataType="Byte"{more}><Description>NIR: near infrared</Description>'
        '<ComplexSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
        "<SourceBand>{band}</SourceBand>{lut}</ComplexSource></VRTRasterBand>"
    )
    (tmp_path / "all.vrt").write_text(
        '<VRTDataset rasterXSize="200" rasterYSize="150"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>600000, 10, 0, 5000000, 0, -10</GeoTransform>"
        '<Metadata><MDI key="SITE">see: https://example.org</MDI></Metadata>'
        + band.format(more=' band="1"', band=1, lut="<LUT>10:20,130:250</LUT>")
        + "<MaskBand>" + band.format(more="", band="mask,1", lut="") + "</MaskBand></VRTDataset>"
    )  # fmt: skip
    with Scene.open(tmp_path / "all.vrt", ["1"]) as scene:
        found, valid = scene.read()
    assert (valid == (mask > 0)).all()
    assert found[0, :60].mean() > pixels(bands=1)[0, :60].mean()


def test_damaged_files_of_every_format_end_as_pixels_or_as_an_error(tmp_path: Path) -> None:
    random = np.random.default_rng(20)
    files, kinds = [], {}
    for name, data in valid_files().items():
        for number, (kind, changed) in enumerate(damaged(data, random, 20)):
            path = tmp_path / f"{number:02}-{kind}-{name}"
            path.write_bytes(changed)
            files.append(path)
            kinds[path.name] = (kind, len(changed) / len(data))
    assert len(files) > 300
    found = outcomes(files)
    assert len(found) == len(files)
    for name, outcome in found.items():
        check(outcome)
        kind, share = kinds[name]
        # Only the first band is read, and the bands of deep.tif lie one after the other.
        if kind == "cut" and share < (0.2 if name.endswith("deep.tif") else 0.9):
            for way in ("as_picture", "as_scene"):
                assert outcome[way][0] in ("refused", "damaged", "empty"), outcome


def test_whole_files_of_every_format_are_read(tmp_path: Path) -> None:
    """The harness would notice if everything was refused."""
    files = []
    for name, data in valid_files().items():
        files.append(tmp_path / name)
        files[-1].write_bytes(data)
    found = outcomes(files)
    scenes = {name for name, outcome in found.items() if outcome["as_scene"][0] == "tiles"}
    assert scenes == set(valid_files())
    pictures = {name for name, outcome in found.items() if outcome["as_picture"][0] == "tiles"}
    assert set(valid_files()) - pictures == {"deep.tif", "float.tif", "plain.jp2"}
