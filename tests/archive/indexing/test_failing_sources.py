"""Whatever reading one source does, the rest of the run goes on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import netcdf_file

from rsir.archive import Archive
from rsir.scenes.scene import Scene
from tests.support.colour_encoder import ColourEncoder
from tests.support.images import land, paint, write_scene

pytestmark = pytest.mark.slow


def variables(path: Path) -> Path:
    """A NetCDF file of two variables, without bands of its own."""
    with netcdf_file(path, "w") as file:
        for axis in ("y", "x"):
            file.createDimension(axis, 9)
        for name in ("wind", "rain"):
            file.createVariable(name, "f4", ("y", "x"))[:] = np.zeros((9, 9))
    return path


@pytest.mark.parametrize(
    "error", [IndexError("no band"), KeyError("a"), MemoryError(), RecursionError(), OSError(5)]
)
@pytest.mark.parametrize("way", ["picture", "scene", "kind"])
def test_an_unforeseen_error_of_one_source_is_listed_and_the_rest_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    way: str, error: Exception,
) -> None:  # fmt: skip
    for seed in range(3):
        paint(tmp_path / "in" / f"{seed}.png", seed)
    for name in ("x.tif", "y.tif"):
        write_scene(tmp_path / "in" / name, land(dtype=np.uint16))
    bad = tmp_path / "in" / ("x.tif" if way == "scene" else "1.png")

    def failing(real: Any) -> Any:
        def call(first: Any, *more: Any, **options: Any) -> Any:
            if Path(getattr(first, "uri", first)) == bad:
                raise error
            return real(first, *more, **options)

        return call

    reading = "rsir.archive.indexing.reading"
    if way == "scene":
        monkeypatch.setattr(Scene, "read", failing(Scene.read))
    else:
        from rsir.archive.indexing import reading as module

        name = "read_tile" if way == "picture" else "is_picture"
        monkeypatch.setattr(f"{reading}.{name}", failing(getattr(module, name)))
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    with caplog.at_level(logging.DEBUG, "rsir.sources.gate"):
        report = archive.add([tmp_path / "in"])
    assert [skipped.path for skipped in report.skipped] == [str(bad)]
    assert {Path(record.source).name for record in archive.records()} == {
        path.name for path in (tmp_path / "in").iterdir() if path != bad
    }
    if not isinstance(error, MemoryError):
        assert any(record.exc_info for record in caplog.records)


def test_files_of_several_variables_are_refused_with_their_names(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "a.png", 1)
    disguised, plain = variables(tmp_path / "in" / "b.tif"), variables(tmp_path / "c.nc")
    archive = Archive.create(tmp_path / "archive", ColourEncoder())
    report = archive.add([tmp_path / "in", plain])
    assert (report.added, len(report.skipped)) == (1, 2)
    reasons = {skipped.path: skipped.reason for skipped in report.skipped}
    assert "NetCDF" in reasons[str(disguised)]
    assert "gdal_translate netcdf:" in reasons[str(plain)].lower()
    assert ":wind" in reasons[str(plain)]
    assert ":rain" in reasons[str(plain)]
