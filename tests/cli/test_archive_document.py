"""Run every command of docs/archive.md, in order."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from PIL import Image

import rsir
from tests.cli.running import Shell

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "archive.md"
FENCE = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = [
    line
    for block in FENCE.findall(DOCUMENT.read_text("utf-8"))
    for line in block.replace("\\\n", " ").splitlines()
]
ELSEWHERE = ("https://", "s3://", "milvus://")
"""Commands with these need other machines."""


@pytest.fixture
def world(tmp_path: Path, model: Path, coloured_classes: Path) -> Path:
    """The files that the document names."""
    shutil.copytree(coloured_classes, tmp_path / "images")
    shutil.copytree(coloured_classes / "lake", tmp_path / "more" / "images")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(model)
    random = np.random.default_rng(0)
    for folder in ("scenes", "masks"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(("west", "east")):
        georeference = {
            "crs": "EPSG:32633",
            "transform": Affine(10, 0, 6e5 + 4e4 * number, 0, -10, 5e6),
        }
        profile = {"driver": "GTiff", "width": 400, "height": 300, "dtype": "uint16"} | georeference
        path = tmp_path / "scenes" / f"{name}.tif"
        with rasterio.open(path, "w", count=3, photometric="rgb", **profile) as file:
            fields = random.integers(200, 3000, (3, 6, 8))
            file.write(fields.repeat(50, axis=1).repeat(50, axis=2).astype(np.uint16))
            file.update_tags(TIFFTAG_DATETIME="2024:05:01 10:00:00")
        with rasterio.open(tmp_path / "masks" / path.name, "w", count=1, **profile) as file:
            clouds = np.zeros((1, 300, 400), np.uint16)
            clouds[:, :, : 150 * number] = 9
            file.write(clouds)
    for name, colour in (("query", (30, 60, 150)), ("other", (90, 160, 60))):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    ring = [[16, 45], [17, 45], [17, 46], [16, 46], [16, 45]]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    vectors = list(random.standard_normal((4, 6)).astype(np.float32))
    rows = pa.table({"chip": list("abcd"), "embeddings": vectors})
    pq.write_table(rows, tmp_path / "embeddings.parquet")
    return tmp_path


def test_every_command_runs(shell: Shell, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    ran = 0
    for line in COMMANDS:
        assert line.startswith("rsir ")
        if any(scheme in line for scheme in ELSEWHERE):
            continue
        words = shlex.split(line)[1:]
        if {"ID", "id:ID", "--vector", "VERSION", "RANKING"} & set(words):
            archive = rsir.open("my-archive")
            ids = [record.id for record in archive.records() if "window" not in record.properties]
            np.save("vector.npy", archive.vectors(ids[:1])[0])
            for name, value in (
                ("ID", ids[0]), ("OTHER", ids[1]), ("RANKING", archive.metric),
                ("VERSION", str(archive.info()["version"] - 1)),
            ):  # fmt: skip
                words = [re.sub(rf"^(id:)?{name}$", rf"\g<1>{value}", word) for word in words]
        words = ["a" if word == "CHIP" else word for word in words]
        done = shell(*words, answer="yes\n")
        assert done.status == 0, (line, done.err)
        assert "skipped" not in done.err, (line, done.err)
        if words[0] == "search" and "--out" not in words and "--min-percentile" not in words:
            assert len(done.out.splitlines()) > 2, line  # it found something
        ran += 1
    assert ran == len(COMMANDS) - 3
    assert {"hits.geojson", "hits.csv", "hits.html", "items.json"} <= {
        file.name for file in world.iterdir()
    }
    assert len(rsir.open("copy")) > len(rsir.open("big-archive"))
