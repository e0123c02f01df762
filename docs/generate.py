"""Regenerate the parts of docs/ that commands make.

python docs/generate.py           # cli.md, the tables, and pictures/ from generated scenes
python docs/generate.py --tables  # the tables alone, from benchmarks/results
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
SHOWN = ("airport", "residential", "water")
"""The land uses of the searches in the picture."""
WIDTHS = {"strip": 960, "confusion": 640}
"""Widths in pixels of the pictures of an evaluation: small files that are legible on a page."""

BENCHMARKS = DOCS.parent / "benchmarks"
RESULTS = BENCHMARKS / "results"
TABLE = re.compile(r"(<!-- table (\S+) -->\n).*?(\n<!-- /table -->)", re.DOTALL)
"""The part of a document that a table of benchmarks/results fills."""
NOT_YET = "No results are kept."
"""The text instead of a table without results."""


def main() -> None:
    """Write all files."""
    fill_tables()
    if "--tables" in sys.argv[1:]:
        return
    from rsir.cli import demo

    command = [sys.executable, "-m", "typer", "rsir.cli", "utils", "docs", "--name", "rsir"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (DOCS / "cli.md").write_text(done.stdout, "utf-8")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        print(demo.run(out))
        PICTURES.mkdir(exist_ok=True)
        (archive,), (run,) = out.glob("archive-*"), out.glob("run-*")
        picture = search_picture(archive, Path(folder)).quantize(256)
        picture.save(PICTURES / "search.png", optimize=True)
        evaluation_pictures(run, out / "scenes", Path(folder))


def fill_tables() -> None:
    """Write the tables of benchmarks/results into the documents that mark a table."""
    for file in DOCS.glob("*.md"):
        text = file.read_text("utf-8")
        file.write_text(TABLE.sub(lambda m: m[1] + table(m[2]) + m[3], text), "utf-8")


def table(name: str) -> str:
    """The Markdown of one table: NAME.md, or NAME.json as its benchmark formats it.

    BENCHMARK:PART is the PART that `shown` of benchmarks/BENCHMARK.py returns.
    """
    benchmark, _, part = name.partition(":")
    if part:
        sys.path.append(str(BENCHMARKS))  # benchmarks import each other
        try:
            found: str = runpy.run_path(str(BENCHMARKS / f"{benchmark}.py"))["shown"](part)
        except (FileNotFoundError, KeyError):
            return NOT_YET
        return found
    if (RESULTS / f"{name}.md").exists():
        return (RESULTS / f"{name}.md").read_text("utf-8").strip()
    if not (RESULTS / f"{name}.json").exists():
        return NOT_YET
    found = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    script = BENCHMARKS / Path(found["command"].split()[1]).name
    rows = runpy.run_path(str(script))["table"](found["results"])
    size, machine = found["size"], found["machine"]
    return (
        f"{rows}\n\n{size['n']:,} × {size['dim']}, {size['classes']} classes, leave-one-out; "
        f"{machine['cpu']}, {machine['cores']} cores: `{found['command']}`"
    )


def search_picture(archive: Path, folder: Path) -> Image.Image:
    """A strip for each land use: a new scene that is not in the archive, and its eight nearest."""
    import rsir
    from rsir.archive.pictures.cards import contact_sheet
    from rsir.data.synthetic import scenes

    fresh = scenes.write_scenes(folder / "fresh", per_class=1, seed=99)
    queries = [path for path in fresh if path.parent.name in SHOWN]
    found = rsir.open(archive).search_many(queries, k=8)
    strips = [contact_sheet(q, hits) for q, hits in zip(queries, found, strict=True)]
    sheet = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def evaluation_pictures(run: Path, images: Path, folder: Path) -> None:
    """Draw the worst search of a run's test images, and the confusion of its classes."""
    import rsir
    from rsir import figures
    from rsir.data import splits
    from rsir.evaluation.evaluate import evaluate

    test = splits.read(run / "split.csv").labelled(images, "test")
    details = evaluate(rsir.load(run), test, nearest=10).details
    worst = next(choice for choice in figures.chosen_queries(details) if choice.name == "worst")
    drawn = {
        "strip": figures.strip(details, worst),
        "confusion": figures.confusion_matrix(details),
    }
    for name, picture in drawn.items():
        small = Image.open(picture.save(folder)[0]).convert("RGB")
        small.thumbnail((WIDTHS[name], WIDTHS[name]), Image.Resampling.LANCZOS)
        small.quantize(256).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
