"""The commands that measure models: evaluate, compare, reproduce."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.options import (
    Data,
    Device,
    Json,
    Labels,
    Set,
    labelled_set,
    parse_assignments,
    print_json,
)
from rsir.cli.printing import print_comparison, print_report, progress, say, waiting
from rsir.errors import DataError, UsageError

if TYPE_CHECKING:
    from rsir.data.folder import LabelledSet
    from rsir.data.splits import Split, SplitPart

app = typer.Typer()

SHOWN = 10
"""Number of hits that the pictures show and the confusion matrix counts."""


class PartChoice(StrEnum):
    """The part of a labelled set that `rsir evaluate` measures."""

    test = "test"
    val = "val"
    train = "train"
    all = "all"

    def parts(self) -> tuple[SplitPart, ...]:
        """The parts of a split that this choice includes."""
        every: tuple[SplitPart, ...] = ("train", "val", "test")
        return tuple(part for part in every if self.value in (part, "all"))


class Protocol(StrEnum):
    """Which images search which in `rsir evaluate`."""

    leave_one_out = "leave-one-out"
    query_gallery = "query-gallery"


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, or hf:owner/name.")],
    data: Data,
    split: Annotated[
        Path | None,
        typer.Option(help="File of a split. Default: the split of the model's training."),
    ] = None,
    part: Annotated[
        PartChoice | None,
        typer.Option(help="Part of the split. Default: test; without a split, all."),
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="query-gallery: the images of the part search those of all other parts."),
    ] = Protocol.leave_one_out,
    ranking: Annotated[
        str | None,
        typer.Option(
            help="cosine, euclidean or ncc; for hash codes hamming or adaptive-hamming. "
            "Default: the model's own."
        ),
    ] = None,
    labels: Labels = None,
    per_class: Annotated[bool, typer.Option(help="Also print a row for each class.")] = False,
    ties: Annotated[
        bool,
        typer.Option(
            help="Also print the values for the best and the worst order of equal distances."
        ),
    ] = False,
    drop_empty: Annotated[
        bool,
        typer.Option(
            "--drop-empty",
            help="Leave out queries without a relevant image, which otherwise count 0.",
        ),
    ] = False,
    near_duplicates: Annotated[
        bool,
        typer.Option(help="Also search for images that look alike across the parts of the split."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the whole report to this file, as JSON.")
    ] = None,
    per_query: Annotated[
        Path | None,
        typer.Option(help="Write the values of every query to this file, for `rsir compare`."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Write pictures, and a page with all of them, to this folder."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model on a labelled set: mAP, ANMRR, R@k, P@k, overall and per class."""
    import dataclasses

    with waiting("loading torch"):
        from rsir.data import splits
        from rsir.data.near_duplicates import split_near_duplicates
        from rsir.evaluation.evaluate import evaluate as run
        from rsir.models.encoder import Encoder

    if figures is not None:
        from rsir.figures.report import check_folder

        check_folder(figures)
    with waiting("loading the model"):
        encoder = Encoder.load(model, device=device)
    own = (encoder.folder or Path()) / "split.csv"
    manifest = split or (own if own.is_file() and part is not PartChoice.all else None)
    gallery = None
    about: dict[str, Any] = {}
    if protocol is Protocol.query_gallery and (manifest is None or part is PartChoice.all):
        raise UsageError("query-gallery needs a --split, and a --part of it for the queries")
    parts: Split | None = None
    if near_duplicates and manifest is None:
        raise UsageError("--near-duplicates compares the parts of a split; give one")
    if manifest is None:
        if part not in (None, PartChoice.all):
            raise UsageError(f"--part {part.value} is a part of a split; give one with --split")
        queries = labelled_set(data, labels)
        about["part"] = "all"
    else:
        if labels is not None:
            raise UsageError("a split has its own labels; --labels works with --part all")
        parts = splits.read(manifest)
        chosen = (part or PartChoice.test).parts()
        queries = _verified(parts, data, chosen, is_own=split is None)
        if protocol is Protocol.query_gallery:
            others = tuple(p for p in splits.PARTS if p not in chosen)
            gallery = _verified(parts, data, others, is_own=split is None)
        about |= {"part": (part or PartChoice.test).value, "split_hash": parts.hash}
    with progress("encoding") as tick:
        report = run(
            encoder,
            queries,
            gallery,
            ranking=ranking,
            data=about,
            ties=ties,
            drop_without_relevant=drop_empty,
            nearest=0 if figures is None else SHOWN,
            split=parts,
            on_progress=tick,
        )
    if near_duplicates and parts is not None:
        with progress("comparing") as tick:
            alike = split_near_duplicates(parts, data, on_progress=tick)
        report = dataclasses.replace(report, near_duplicates=alike)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report, per_class=per_class)
    if out is not None:
        report.write(out)
    if per_query is not None:
        report.write_per_query(per_query)
    if figures is not None:
        from rsir.figures import write
        from rsir.figures.explained import heat_maps

        maps = heat_maps(encoder, report.details)
        say(f"look at {write(report, report.details, figures, heat_maps=maps)[-1]}")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="File that `rsir evaluate --per-query` wrote.")],
    second: Annotated[Path, typer.Argument(help="The same file of another model.")],
    measure: Annotated[
        list[str] | None,
        typer.Option(help="Measure to compare; repeatable. Default: map, anmrr and r_at_1."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Test for each measure whether two models differ on the same queries."""
    import dataclasses

    from rsir.evaluation.per_query import paired, read_per_query
    from rsir.evaluation.statistics import SMALLER_IS_BETTER
    from rsir.evaluation.statistics import compare as test

    a, b = paired(read_per_query(first), read_per_query(second))
    usual = [name for name in ("map", "anmrr", "r_at_1") if name in a.values]
    chosen = measure or usual or list(a.values)
    unknown = [name for name in chosen if name not in a.values]
    if unknown:
        raise UsageError(
            f"the files do not both have {', '.join(unknown)}; they have: {', '.join(a.values)}"
        )
    found = test(*({name: table.values[name] for name in chosen} for table in (a, b)))
    empty = [name for name, difference in found.items() if not difference.queries]
    if empty:
        raise UsageError(f"no query has a value of {', '.join(empty)} for both models")
    if as_json:
        measures = {
            name: dataclasses.asdict(d) | {"smaller_is_better": name in SMALLER_IS_BETTER}
            for name, d in found.items()
        }
        print_json({"a": str(first), "b": str(second), "measures": measures})
        return
    print_comparison(found, *_names(first, second))


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Names that tell two files apart: their stems, or else with the folder, or the whole paths."""
    for names in (
        (first.stem, second.stem),
        (f"{first.parent.name}/{first.stem}", f"{second.parent.name}/{second.stem}"),
    ):
        if names[0] != names[1]:
            return names
    return str(first), str(second)


@app.command()
def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="TABLE",
            help="A table of a paper, e.g. dah-table3 (see --list), or a .toml file.",
        ),
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder that holds the image sets.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for runs and tables.")] = Path("reproduced"),
    methods: Annotated[
        str | None, typer.Option(help="Only the rows of these methods: a,b. Default: all.")
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", help="Only the row of this name; repeat it for several rows."),
    ] = None,
    sets: Annotated[
        str | None,
        typer.Option(help="Only the columns of these sets: ucm,aid. Default: all."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Seeds of split and training. Default: 0.")
    ] = None,
    conditions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="TOML file of settings that all rows share; the options below override it.",
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A timm name. Default: the backbone of the table.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="'pretrained' (timm's hub; default), 'none', or a safetensors file."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, help="Side of the images in pixels. Default: 224.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="Epochs of each training. Default: 30.")
    ] = None,
    set_: Set = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch. Default: one for each core.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Try it in minutes; the numbers mean nothing.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the tables and their sets.")] = False,
) -> None:
    """Train and measure what a paper's table asks for, and show paper and ours side by side.

    The same command continues an interrupted one, and does not repeat finished trainings.
    """
    from rsir.reproduce import table as tables

    if list_:
        for name in tables.names():
            found = tables.load(name)
            needed = sorted(
                {c.data for c in found.columns if c.data}
                | {c.unseen for c in found.columns if c.unseen}
            )
            typer.echo(f"{name:22s}{found.title}; needs {', '.join(needed) or 'no image set'}")
        return
    if table is None or data_root is None:
        raise UsageError("give a TABLE and --data-root; --list shows the tables")
    from rsir.reproduce.conditions import Conditions, read_conditions
    from rsir.reproduce.runs import reproduce as run

    shared, shared_seeds = ({}, None) if conditions is None else read_conditions(conditions)
    own = {"backbone": backbone, "weights": weights, "image_size": size, "epochs": epochs}
    shared |= {name: value for name, value in own.items() if value is not None}
    assigned = parse_assignments(set_ or [])
    for name in ("batch_size", "precision", "validation", "workers"):
        if name in assigned:
            shared[name] = assigned.pop(name)
    if assigned:
        shared["settings"] = {**shared.get("settings", {}), **assigned}
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    compared = run(
        table,
        data_root,
        out,
        conditions=Conditions(**shared) if shared else None,
        methods=None if methods is None else [name.strip() for name in methods.split(",")],
        rows=rows,
        sets=None if sets is None else [name.strip() for name in sets.split(",")],
        seeds=_seeds(seeds) if seeds is not None else shared_seeds or (0,),
        quick=quick,
        on_line=say,
    )
    typer.echo(compared.markdown())
    folder = compared.write(out / compared.name)
    say(f"the table as Markdown, CSV, JSON and a picture is in {folder}")
    if not any(cell.ours for cell in compared.cells):
        raise DataError("nothing could be run; the table says why")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise UsageError(f"--seeds {text}: write it as A,B,C, whole numbers") from None


def _verified(
    split: Split, data: Path, parts: tuple[SplitPart, ...], *, is_own: bool
) -> LabelledSet:
    """The images of these parts, after a check that the files are those of the split."""
    if not len(split.part(*parts)):
        raise UsageError(f"the split has no images in {', '.join(parts)}")
    try:
        split.verify(data, *parts)
    except DataError as error:
        if not is_own:
            raise
        hint = "this is the split of the model's training; for another set: --part all"
        raise DataError(f"{error} ({hint})") from error
    return split.labelled(data, *parts)
