"""Regenerate what in docs/ comes from commands.

python docs/generate.py           # cli.md, the tables, and pictures/ from generated scenes
python docs/generate.py --tables  # the tables of results.md alone, from benchmarks/results
"""

from __future__ import annotations

import re
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


RESULTS = DOCS.parent / "benchmarks" / "results"
TABLE = re.compile(r"(<!-- table (\S+) -->\n).*?(\n<!-- /table -->)", re.DOTALL)
"""A place in results.md that holds benchmarks/results/NAME.md."""


def main() -> None:
    """Write them all."""
    fill_tables()
    if "--tables" in sys.argv[1:]:
        return
    command = [sys.executable, "-m", "typer", "rsir.cli", "utils", "docs", "--name", "rsir"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (DOCS / "cli.md").write_text(done.stdout, "utf-8")
    with tempfile.TemporaryDirectory() as folder:
        print(demo.run(Path(folder) / "demo"))
        (archive,) = (Path(folder) / "demo").glob("archive-*")
        (DOCS / "pictures").mkdir(exist_ok=True)
        picture = search_picture(archive, Path(folder)).quantize(256)
        picture.save(DOCS / "pictures" / "search.png", optimize=True)


def fill_tables() -> None:
    """Put each table of benchmarks/results that results.md has a place for into it."""
    file = DOCS / "results.md"
    text = file.read_text("utf-8")
    file.write_text(TABLE.sub(lambda m: m[1] + table(m[2]) + m[3], text), "utf-8")


def table(name: str) -> str:
    """The Markdown of one table."""
    return (RESULTS / f"{name}.md").read_text("utf-8").strip()


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
