"""Small tables and drawn image sets for `reproduce`, and helpers that read its results."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from rsir.data.synthetic import scenes
from rsir.reproduce.side_by_side import Comparison

UCM = {"beach": "water", "forest": "forest", "harbor": "industry", "river": "field"}
AID = {"Airport": "airport", "Farmland": "field", "Forest": "forest", "River": "road"}
"""Class folders, and the land use that is drawn in each."""
EACH = 14

HEAD = """
title = "A table of everything"
paper = "D"
source = "nobody, table 0"
protocol = "Nothing is\\nsaid."
"""
COMMON = """
common = { data = "ucm", train = 0.5, unit = "percent" }
"""
TABLE = f"""{HEAD}{COMMON}
column = [
  {{ name = "mAP", measure = "map" }},
  {{ name = "R@1", measure = "r_at_1", unit = "share" }},
  {{ name = "gallery", measure = "map", search = "query-gallery" }},
  {{ name = "river", measure = "map", class_name = "river" }},
  {{ name = "runway", measure = "map", class_name = "runway" }},
  {{ name = "SIRI", measure = "map", data = "siri-whu" }},
  {{ name = "radius", measure = "precision_within_2" }},
  {{ name = "labels", measure = "map", data = "dlrsd", labels = true }},
  {{ name = "minutes", unit = "minutes" }},
]
[[row]]
name = "plain"
method = "pooled"
values = [50, 0.5, 50, 50, 50, 50, 50, 50, nan]
[[row]]
name = "NCC"
method = "pooled"
settings = {{ ranking = "ncc" }}
values = [50, nan, nan, nan, nan, nan, nan, nan, nan]
[[row]]
name = "DAH"
method = "dah"
settings = {{ bits = 8 }}
values = [50, nan, nan, nan, nan, 50, 50, 50, nan]
[[row]]
name = "DAH-D"
method = "dah"
settings = {{ bits = 8, ranking = "hamming" }}
values = [50, nan, nan, nan, nan, nan, nan, nan, 3]
[[row]]
name = "broken"
method = "eara"
settings = {{ dimension = 7 }}
values = [50, nan, nan, nan, nan, nan, nan, nan, nan]
[[row]]
name = "HashNet"
absent = "hashnet: not in rsir yet"
values = [50, nan, nan, nan, nan, nan, nan, nan, nan]
"""
UNSEEN = f"""{HEAD}
common = {{ measure = "map_at_10_found", data = "ucm", unseen = "aid", unit = "percent" }}
column = [{{ name = "AID" }}]
[[row]]
name = "JSRT"
method = "jsrt"
values = [90]
"""


def draw_class_folders(root: Path, classes: dict[str, str], each: int = EACH) -> None:
    for name, land_use in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = scenes.draw(land_use, size=32, seed=i)  # type: ignore[arg-type]
            Image.fromarray(pixels.transpose(1, 2, 0)).save(root / name / f"{name}{i:02d}.png")


def ours(comparison: Comparison) -> dict[tuple[str, str], tuple[float, ...]]:
    return {(cell.row, cell.column): cell.ours for cell in comparison.cells if cell.ours}


def run_folder(out: Path, start: str) -> Path:
    (folder,) = (path for path in (out / "runs").glob(f"{start}*") if path.is_dir())
    return folder
