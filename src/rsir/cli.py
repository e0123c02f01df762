"""The shell: parse, call, print. Nothing is decided here.

Results go to stdout, messages and progress to stderr. Exit status: 0 done, 1 failed, 2 wrong
usage, 130 interrupted. Heavy libraries load inside the commands, so that --help is quick.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rsir.errors import RsirError, UsageError

if TYPE_CHECKING:
    from rsir.archive.hits import Hits
    from rsir.data.folder import LabelledSet
    from rsir.evaluate import Report

app = typer.Typer(
    help="Content-based remote sensing image retrieval: learn, measure, search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
datasets_app = typer.Typer(help="The benchmark sets: list, check, fetch.", no_args_is_help=True)
app.add_typer(datasets_app, name="datasets")

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""

Data = Annotated[Path, typer.Option("--data", help="Folder of class folders with images.")]
Labels = Annotated[
    Path | None,
    typer.Option(help="Multi-label table: image name, then 0/1 per label; instead of folders."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


class Format(StrEnum):
    """How `rsir search` shows its hits."""

    table = "table"
    json = "json"
    html = "html"


class Part(StrEnum):
    """Which part of a labelled set `rsir evaluate` measures."""

    test = "test"
    val = "val"
    train = "train"
    all = "all"

    def parts(self) -> tuple[Literal["train", "val", "test"], ...]:
        """The parts of a split that it means."""
        every: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
        return tuple(part for part in every if self.value in (part, "all"))


class Protocol(StrEnum):
    """Who searches whom in `rsir evaluate`."""

    leave_one_out = "leave-one-out"
    query_gallery = "query-gallery"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        import rsir

        typer.echo(rsir.__version__)
        raise typer.Exit


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods, with their options and the values they start from."""
    import dataclasses

    from rsir.methods import METHODS, method_type

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": method_type(name).title,
            "defaults": dataclasses.asdict(method_type(name).options_type())
            | method_type(name).settings,
        }
        for name in METHODS
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(f"{row['name']:16s}{row['title']}")
        for key, value in row["defaults"].items():
            typer.echo(f"{'':16s}  -s {key}={value}")


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A method, see `rsir methods`.")],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    backbone: Annotated[
        str, typer.Option(help="A timm name, options after a colon: resnet50, name:key=value.")
    ] = "resnet50",
    weights: Annotated[
        str, typer.Option(help="'pretrained' (timm's hub), 'none', or a safetensors file.")
    ] = "pretrained",
    split: Annotated[Path | None, typer.Option(help="A split written earlier.")] = None,
    train_share: Annotated[float, typer.Option(help="Share of each class to train on.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the split and of the training.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="0: keep the starting weights.")] = None,
    labels: Labels = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of method or training."),
    ] = None,
) -> None:
    """Train a method on a labelled set and save the best epoch.

    The same command takes up an interrupted run where it was, and does nothing if it is done.
    """
    from rsir import training
    from rsir.data import splits
    from rsir.methods import method_type

    kind = method_type(method)
    chosen = parse_assignments(set_ or [])
    chosen |= {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    options, settings = training.configure(kind, chosen)
    images = _readable(_labelled_set(data, labels))
    if split is None:
        parts = splits.make(images, train=train_share, val=settings.validation, seed=settings.seed)
    else:
        parts = splits.read(split)
    training.train(
        method,
        parts,
        images.root,
        out,
        backbone=backbone,
        weights=weights,
        options=options,
        settings=settings,
        on_epoch=_say,
        progress=sys.stderr.isatty(),
    )
    _say(f"the model is in {out}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, or hf:owner/name.")],
    data: Data,
    split: Annotated[
        Path | None, typer.Option(help="Default: the split that the model was trained on.")
    ] = None,
    part: Annotated[
        Part | None, typer.Option(help="Default: test; all, if there is no split.")
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="query-gallery: the part's images search all other parts' images."),
    ] = Protocol.leave_one_out,
    ranking: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    labels: Labels = None,
    per_class: Annotated[bool, typer.Option(help="Also a row for each class.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Measure a model on a labelled set: mAP, R@k, P@k, overall and per class."""
    import rsir
    from rsir.data import splits
    from rsir.evaluate import evaluate as run

    encoder = rsir.load(model, device=device)
    own = (encoder.folder or Path()) / "split.csv"
    manifest = split or (own if own.is_file() and part is not Part.all else None)
    gallery = None
    about: dict[str, Any] = {}
    if manifest is None:
        if part not in (None, Part.all) or protocol is Protocol.query_gallery:
            raise UsageError("parts need a split; give one with --split")
        queries = _labelled_set(data, labels)
        about["part"] = "all"
    else:
        parts = splits.read(manifest)
        chosen = (part or Part.test).parts()
        queries = parts.labelled(data, *chosen)
        if protocol is Protocol.query_gallery:
            gallery = parts.labelled(data, *(p for p in splits.PARTS if p not in chosen))
        about |= {"part": (part or Part.test).value, "split_hash": parts.hash}
    with _progress("encoding") as tick:
        report = run(encoder, queries, gallery, ranking=ranking, data=about, on_progress=tick)
    if json_file is not None:
        report.write(json_file)
    _print_report(report, per_class)


@app.command()
def index(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive; made if new.")],
    paths: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    model: Annotated[
        str | None, typer.Option(help="A run folder or hf:owner/name; needed for a new one.")
    ] = None,
    as_json: Json = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Encode images into an archive. Running it again adds only what is new or changed."""
    import rsir
    from rsir.archive.archive import Archive

    if model is not None:
        opened = Archive.open_or_create(archive, rsir.load(model, device=device))
    elif not archive.exists():
        raise UsageError(f"{archive} is a new archive: say with which --model to make it")
    else:
        opened = Archive.open(archive)
    with _progress("indexing") as tick:
        report = opened.add(paths, on_progress=tick)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    ignored = sum(report.ignored.values())
    typer.echo(
        f"{report.added} added, {report.replaced} replaced, {report.unchanged} unchanged, "
        f"{len(report.skipped)} skipped, {ignored} other files ignored; "
        f"{len(opened)} images in {archive}"
    )
    for skipped in report.skipped:
        _say(f"skipped {skipped.path}: {skipped.reason}")


@app.command()
def search(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive.")],
    image: Annotated[Path, typer.Argument(help="The query image.")],
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    format: Annotated[Format, typer.Option(help="How to show them.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="File to write, instead of stdout.")] = None,
) -> None:
    """Find the images of an archive that are most similar to an image."""
    import rsir

    hits = rsir.open(archive).search(image, k=k)
    if format is Format.table and out is None:
        _print_hits(hits)
        return
    if format is Format.json:
        text = json.dumps([hit.to_dict() for hit in hits], indent=2, ensure_ascii=False)
    elif format is Format.html:
        from rsir import gallery

        section = gallery.Section(hits, image, took=hits.seconds, searched=hits.searched)
        text = gallery.page(section, title=f"Images like {image.name}")
    else:
        text = "\n".join(f"{hit.score:.4f}\t{hit.distance:.4f}\t{hit.source}" for hit in hits)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n", "utf-8")
        _say(f"wrote {out}")


@app.command()
def info(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive.")], as_json: Json = False
) -> None:
    """Say what an archive holds, and which model it belongs to."""
    import rsir

    found = rsir.open(archive).info()
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for key, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {v}" for k, v in value.items())
        typer.echo(f"{key:12s}{shown}")


@app.command()
def prune(archive: Annotated[Path, typer.Argument(help="Folder of the archive.")]) -> None:
    """Forget the images whose files are gone."""
    import rsir

    gone = rsir.open(archive).prune()
    typer.echo(f"{len(gone)} images forgotten")


@datasets_app.command("list")
def datasets_list(as_json: Json = False) -> None:
    """List the benchmark sets: classes, images, size, licence."""
    import dataclasses

    from rsir.data import catalog

    entries = catalog.ENTRIES.values()
    if as_json:
        rows = [dataclasses.asdict(entry) for entry in entries]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for entry in entries:
        height, width = entry.size
        typer.echo(
            f"{entry.name:16s}{entry.images:6d} images  {entry.class_count:2d} "
            f"{'classes' if entry.labels == 'single' else 'labels '}  {height}×{width}  "
            f"{entry.title}; licence {entry.licence}"
        )


@datasets_app.command("check")
def datasets_check(
    name: Annotated[str, typer.Argument(help="A set, see `rsir datasets list`.")],
    root: Annotated[Path, typer.Argument(help="Folder that it was unpacked in.")],
) -> None:
    """Say what of a set is missing, extra or corrupt."""
    from rsir.data.catalog import get
    from rsir.data.catalog_check import check

    report = check(get(name), root)
    for line in report.lines:
        typer.echo(line)
    if not report.ok:
        raise typer.Exit(1)


@datasets_app.command("fetch")
def datasets_fetch(
    name: Annotated[str, typer.Argument(help="A set, see `rsir datasets list`.")],
    root: Annotated[Path, typer.Argument(help="Folder to unpack it in.")],
) -> None:
    """Download a set, where it can be had, and check it."""
    from rsir.data.catalog import get
    from rsir.data.catalog_fetch import fetch

    typer.echo(f"{name} is in {fetch(get(name), root)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="Your own images, instead of generated scenes.")
    ] = None,
) -> None:
    """Show the whole way, offline: scenes, training, archive, searches, a page."""
    from rsir import demo as demonstration

    typer.echo(demonstration.run(out, data, say=_say))


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """{"key": value} from "key=value" texts; values are JSON where they can be, else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError(f"-s {pair}: write it as key=value")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def main() -> None:
    """Run the shell; a person's mistake is a message and a status, never a traceback."""
    try:
        app()
    except RsirError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_status)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            _say("interrupted; the same command goes on from here")
        raise


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _labelled_set(data: Path, labels: Path | None) -> LabelledSet:
    from rsir.data import folder

    return folder.load(data, labels=labels)


def _readable(images: LabelledSet) -> LabelledSet:
    """The readable ones; the others are counted and listed."""
    from rsir.data.loading import readable

    kept, skipped = readable(images)
    for path, reason in skipped:
        _say(f"skipped {path}: {reason}")
    if skipped:
        _say(f"{len(skipped)} of {len(images)} images skipped")
    return kept


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left on a terminal; a plain line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Progress as text, a line every ten seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < 10:
            return
        self.last = now
        rate = done / (now - self.started)
        _say(f"{self.what}: {done} of {total}, {rate:.0f} a second")


def _print_report(report: Report, per_class: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    names = {k: k.replace("r_at_", "R@").replace("p_at_", "P@") for k in report.metrics}
    names["map"] = "mAP"
    table = Table(
        title=f"{report.queries} queries, {report.gallery} in the gallery, {report.protocol}, "
        f"{report.ranking}"
    )
    table.add_column("class" if per_class else "")
    for key in report.metrics:
        table.add_column(names[key], justify="right")
    if per_class:
        for name, values in report.per_class.items():
            table.add_row(name, *(f"{values[key]:.3f}" for key in report.metrics))
        table.add_section()
    table.add_row("all", *(f"{value:.4f}" for value in report.metrics.values()))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if report.queries_without_relevant:
        _say(f"{report.queries_without_relevant} queries have nothing relevant and count 0")
    for path, reason in report.skipped:
        _say(f"skipped {path}: {reason}")


def _print_hits(hits: Hits) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("rank", "score", "distance"):
        table.add_column(column, justify="right")
    table.add_column("image", overflow="fold")
    for rank, hit in enumerate(hits, start=1):
        table.add_row(str(rank), f"{hit.score:.4f}", f"{hit.distance:.4f}", hit.source)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    _say(f"{hits.searched} images searched in {hits.seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()
