"""Regenerate what in docs/ comes from commands: cli.md, and pictures/ from generated scenes.

python docs/generate.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import rsir
from rsir import demo, gallery
from rsir.data import scenes

DOCS = Path(__file__).resolve().parent
SHOWN = ("airport", "residential", "water")
"""The land uses whose searches are in the picture."""


def main() -> None:
    """Write them all."""
    command = [sys.executable, "-m", "typer", "rsir.cli", "utils", "docs", "--name", "rsir"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (DOCS / "cli.md").write_text(done.stdout, "utf-8")
    with tempfile.TemporaryDirectory() as folder:
        print(demo.run(Path(folder) / "demo"))
        (archive,) = (Path(folder) / "demo").glob("archive-*")
        (DOCS / "pictures").mkdir(exist_ok=True)
        picture = search_picture(archive, Path(folder)).quantize(256)
        picture.save(DOCS / "pictures" / "search.png", optimize=True)


def search_picture(archive: Path, folder: Path) -> Image.Image:
    """One strip a land use: a fresh scene that is not in the archive, and its eight nearest."""
    fresh = scenes.write_scenes(folder / "fresh", per_class=1, seed=99)
    queries = [path for path in fresh if path.parent.name in SHOWN]
    found = rsir.open(archive).search_many(queries, k=8)
    strips = [gallery.contact_sheet(q, hits) for q, hits in zip(queries, found, strict=True)]
    sheet = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


if __name__ == "__main__":
    main()
