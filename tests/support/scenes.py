"""Fixtures: `write` writes a raster, `server` serves the folder of the test over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from rsir.geo.georeference import ignore_not_georeferenced

UTM = Affine(10, 0, 600_000, 0, -10, 5_000_000)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes pixels (C, H, W) as a raster; calls `edit` with the dataset before closing it."""

    def write(
        pixels: np.ndarray,
        name: str = "scene.tif",
        transform: Affine | None = UTM,
        crs: Any = "EPSG:32633",
        edit: Callable[[Any], None] | None = None,
        overviews: tuple[int, ...] = (),
        **options: Any,
    ) -> Path:
        ignore_not_georeferenced()
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        georeference = {} if transform is None else {"transform": transform, "crs": crs}
        driver = {".tif": "GTiff", ".jp2": "JP2OpenJPEG", ".png": "PNG"}[path.suffix]
        count, height, width = pixels.shape
        with rasterio.open(
            path, "w", driver=driver, count=count, width=width, height=height,
            dtype=pixels.dtype, **georeference, **options,
        ) as dataset:  # fmt: skip
            dataset.write(pixels)
            if edit is not None:
                edit(dataset)
        if overviews:
            with rasterio.open(path, "r+") as dataset:
                dataset.build_overviews(overviews, rasterio.enums.Resampling.average)
        return path

    return write


class Server:
    """`url` serves a folder; `requests` are those so far: (path, bytes sent, kind)."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    @property
    def requests(self) -> list[tuple[str, int, str]]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [(path, int(sent), kind) for path, sent, kind in map(str.split, lines)]


@pytest.fixture
def server(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """Serves tmp_path, also by ranges."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    log = tmp_path_factory.mktemp("log") / "requests.txt"
    command = [sys.executable, "-m", "tests.support.range_server", tmp_path, log]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}", log)
        finally:
            process.terminate()
