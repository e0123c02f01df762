"""The shell: parse, call, print. Nothing is decided here.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 failed, 2 wrong
usage, 130 interrupted. Heavy libraries load inside the commands, so that --help is quick.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.errors import DataError, RsirError, UsageError
from rsir.terminal import print_hits, print_report, progress, say

if TYPE_CHECKING:
    from rsir.data.folder import LabelledSet
    from rsir.data.splits import Part as SplitPart
    from rsir.data.splits import Split

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

    def parts(self) -> tuple[SplitPart, ...]:
        """The parts of a split that it means."""
        every: tuple[SplitPart, ...] = ("train", "val", "test")
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
    from rsir.settings import Settings

    trainer = dataclasses.asdict(Settings())
    if as_json:
        typer.echo(json.dumps({"methods": rows, "trainer": trainer}, indent=2))
        return
    rows.append({"name": "trainer", "title": "settings of every method", "defaults": trainer})
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
    train_share: Annotated[
        float | None, typer.Option(help="Share of each class to train on; 0.8 if not given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the split and of the training; 0 if not given.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="0: keep the starting weights.")] = None,
    bits: Annotated[int | None, typer.Option(help="Length of the hash code.")] = None,
    labels: Labels = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of method or training."),
    ] = None,
) -> None:
    """Train a method on a labelled set and save the best epoch.

    The same command takes up an interrupted run where it was, and does nothing if it is done.
    """
    import dataclasses

    from rsir import settings as trainer
    from rsir import training
    from rsir.data import splits
    from rsir.methods import method_type

    kind = method_type(method)
    chosen = parse_assignments(set_ or [])
    chosen |= {} if seed is None else {"seed": seed}
    chosen |= {} if epochs is None else {"epochs": epochs}
    if bits is not None:
        if "bits" not in {field.name for field in dataclasses.fields(kind.options_type)}:
            raise UsageError(f"--bits is for methods that learn hash codes; {method} does not")
        chosen |= {"bits": bits}
    options, settings = trainer.configure(kind, chosen)
    if split is None:
        images = _readable(_labelled_set(data, labels))
        share = 0.8 if train_share is None else train_share
        parts = splits.make(images, train=share, val=settings.validation, seed=settings.seed)
        root = images.root
    else:
        if labels is not None or train_share is not None or "validation" in chosen:
            raise UsageError("--split settles labels and shares; leave out the options for them")
        parts = splits.read(split)
        images = parts.labelled(data, "train", "val")
        kept = _readable(images)
        parts = parts.without(set(images.paths) - set(kept.paths))
        root = images.root
    training.train(
        method,
        parts,
        root,
        out,
        backbone=backbone,
        weights=weights,
        options=options,
        settings=settings,
        on_epoch=say,
        progress=sys.stderr.isatty(),
    )
    say(f"the model is in {out}")


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
    ranking: Annotated[
        str | None,
        typer.Option(
            help="cosine, euclidean, ncc; of hash codes hamming, adaptive-hamming. "
            "Default: the model's own."
        ),
    ] = None,
    labels: Labels = None,
    per_class: Annotated[bool, typer.Option(help="Also a row for each class.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Measure a model on a labelled set: mAP, ANMRR, R@k, P@k, overall and per class."""
    import rsir
    from rsir.data import splits
    from rsir.evaluate import evaluate as run

    encoder = rsir.load(model, device=device)
    own = (encoder.folder or Path()) / "split.csv"
    manifest = split or (own if own.is_file() and part is not Part.all else None)
    gallery = None
    about: dict[str, Any] = {}
    if protocol is Protocol.query_gallery and (manifest is None or part is Part.all):
        raise UsageError("query-gallery needs a --split, and a --part of it to take queries from")
    if manifest is None:
        if part not in (None, Part.all):
            raise UsageError(f"the part {part.value} is of a split; give one with --split")
        queries = _labelled_set(data, labels)
        about["part"] = "all"
    else:
        if labels is not None:
            raise UsageError("a split has its own labels; --labels goes with --part all")
        parts = splits.read(manifest)
        chosen = (part or Part.test).parts()
        queries = _verified(parts, data, chosen, is_own=split is None)
        if protocol is Protocol.query_gallery:
            others = tuple(p for p in splits.PARTS if p not in chosen)
            gallery = _verified(parts, data, others, is_own=split is None)
        about |= {"part": (part or Part.test).value, "split_hash": parts.hash}
    with progress("encoding") as tick:
        report = run(encoder, queries, gallery, ranking=ranking, data=about, on_progress=tick)
    print_report(report, per_class=per_class)
    if json_file is not None:
        report.write(json_file)


@app.command()
def fit(
    model: Annotated[str, typer.Argument(help="A run folder, or hf:owner/name.")],
    paths: Annotated[list[Path], typer.Argument(help="The gallery: images and folders of images.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the fitted model.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Fit what a model learns from a gallery without labels: the PCA of jsrt.

    Training fits it to the training images; this makes a model for another gallery.
    """
    import rsir
    from rsir.adapt import fit_on
    from rsir.data.images import find_images

    files, _ = find_images(paths)
    with progress("encoding") as tick:
        _, adapted = fit_on(rsir.load(model, device=device), files, out, on_progress=tick)
    for path, reason in adapted.skipped:
        say(f"skipped {path}: {reason.removeprefix(f'{path}: ')}")
    typer.echo(
        f"fitted to {adapted.images} images, {len(adapted.skipped)} skipped ("
        + ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in adapted.learnt.items())
        + f"); the model is in {out}"
    )


@app.command()
def cost(
    method: Annotated[str, typer.Argument(help="A method, see `rsir methods`.")],
    backbone: Annotated[
        str, typer.Option(help="A timm name, options after a colon: resnet50, name:key=value.")
    ] = "resnet50",
    size: Annotated[
        int, typer.Option(min=1, help="Height and width of the image in pixels.")
    ] = 224,
    classes: Annotated[
        int, typer.Option(min=1, help="Of the training set, for a classifier.")
    ] = 21,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="An option of the method."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the parameters of a method, and the multiply-adds that describe one image."""
    import dataclasses

    from rsir.cost import cost as count
    from rsir.model import build

    names = tuple(f"class {i}" for i in range(classes))
    options = parse_assignments(set_ or [])
    built = build(method, backbone=backbone, spec=size, classes=names, options=options)
    found = count(built)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    typer.echo(
        f"{method} on {backbone}: {found.parameters / 1e6:.3f} M parameters, "
        f"{found.multiply_adds / 1e9:.3f} G multiply-adds for an image of {size} × {size}"
    )


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
    from rsir.archive.archive import MODEL, Archive

    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if model is not None:
        opened = Archive.open_or_create(archive, rsir.load(model, device=device))
    elif not archive.exists():
        raise UsageError(f"{archive} is a new archive: say with which --model to make it")
    else:
        Archive.open(archive)  # says so if it is none, before its model is loaded
        opened = Archive.open(archive, rsir.load(archive / MODEL, device=device))
    with progress("indexing") as tick:
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
        say(f"skipped {skipped.path}: {skipped.reason}")


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

    opened = rsir.open(archive)
    _ = opened.encoder  # loaded now, so that the time shown is that of the search
    hits = opened.search(image, k=k)
    if format is Format.table and out is None:
        print_hits(hits)
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
        say(f"wrote {out}")


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
def prune(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive.")],
    everything: Annotated[
        bool, typer.Option("--everything", help="Even if the files of all images are gone.")
    ] = False,
) -> None:
    """Forget the images whose files are gone."""
    import rsir

    gone = rsir.open(archive).prune(everything=everything)
    typer.echo(f"{len(gone)} images forgotten")


@datasets_app.command("list")
def datasets_list(as_json: Json = False) -> None:
    """List the benchmark sets: classes, images, size, licence."""
    from rsir.data import catalog

    entries = catalog.ENTRIES.values()
    if as_json:
        rows = [entry.to_dict() for entry in entries]
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

    typer.echo(demonstration.run(out, data, say=say))


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
        say(f"error: {error}")
        sys.exit(error.exit_status)
    except OSError as error:
        # A full disk, a folder that may not be written: what the system says is all there is.
        say(f"error: {error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(RsirError.exit_status)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            say("interrupted; training and indexing go on from here when run again")
        raise


def _labelled_set(data: Path, labels: Path | None) -> LabelledSet:
    from rsir.data import folder

    return folder.load(data, labels=labels)


def _verified(
    split: Split, data: Path, parts: tuple[SplitPart, ...], *, is_own: bool
) -> LabelledSet:
    """The images of the parts, if they are what the split was made of."""
    if not len(split.part(*parts)):
        raise UsageError(f"the split has no images in {', '.join(parts)}")
    try:
        split.verify(data, *parts)
    except DataError as error:
        if not is_own:
            raise
        hint = "this is the split that the model was trained on; for another set: --part all"
        raise DataError(f"{error} ({hint})") from error
    return split.labelled(data, *parts)


def _readable(images: LabelledSet) -> LabelledSet:
    """The readable ones; the others are counted and listed."""
    from rsir.data.loading import readable

    kept, skipped = readable(images)
    for path, reason in skipped:
        say(f"skipped {path}: {reason}")
    if skipped:
        say(f"{len(skipped)} of {len(images)} images skipped")
    return kept


if __name__ == "__main__":
    main()
