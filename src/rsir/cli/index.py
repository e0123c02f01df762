"""The command that fills an archive."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.filters import numbers
from rsir.cli.options import Device, Json, print_json
from rsir.cli.printing import print_indexed, progress, waiting
from rsir.errors import DataError, RsirError, UsageError

if TYPE_CHECKING:
    from rsir.archive.archive import Archive
    from rsir.scenes.tiling import Tiling

app = typer.Typer()

_TILING = "How to cut scenes into tiles (with any of these options, also larger pictures)"
_RAY = "On a Ray cluster (docs/cluster.md)"


@app.command()
def index(
    archive: Annotated[Path, typer.Argument(help="Folder of the archive; created if new.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, scenes, folders, globs, STAC items and catalogues, URIs (s3://, "
            "gs://, az://, https://). With --model and no path, creates an empty archive."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A run folder or hf:owner/name; required for a new archive.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Where a new archive keeps its records, if not in its folder: "
            "milvus://HOST:PORT/NAME, s3://BUCKET/NAME.lance.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Index only every N-th file or scene, starting at number I (0 to N-1). For "
            "batch queues: N jobs with the same paths share the work.",
        ),
    ] = None,
    tile_size: Annotated[
        float | None,
        typer.Option(help="Side of a tile, in --unit. Default: 256.", rich_help_panel=_TILING),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option(
            help="Distance from one tile to the next. Default: the tile size.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(help="pixels or metres. Default: pixels.", rich_help_panel=_TILING),
    ] = None,
    gsd: Annotated[
        str | None,
        typer.Option(
            metavar="METRES|model",
            help="Ground sampling distance of the tiles; other scenes are resampled. model: that "
            "of the model's training images. Default: the scene's own.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    edges: Annotated[
        str | None,
        typer.Option(
            help="shift: move the last tile inwards; pad: fill the area outside with nodata. "
            "Default: shift.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Bands by name or number; red=4 names band 4 red. Default: the bands of the "
            "model.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    stretch: Annotated[
        str | None,
        typer.Option(
            help="Stretch to 0..255: auto, none, percentile:LOW,HIGH or range:LOW,HIGH. Default: "
            "auto.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    resampling: Annotated[
        str | None,
        typer.Option(
            help="nearest, bilinear, cubic, average or lanczos. Default: bilinear.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    min_valid: Annotated[
        float | None,
        typer.Option(
            help="Smallest share of a tile that is not nodata, 0..1. Default: 0.5.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    cloud_mask: Annotated[
        str | None,
        typer.Option(
            help="The mask of each scene: a path with {folder} and {stem} of the scene, or the "
            "key of a STAC asset.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    cloud_classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Values of the mask that mean cloud, e.g. 3,8,9,10 of Sentinel-2's SCL. Default: "
            "all except 0.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    max_cloud: Annotated[
        float | None,
        typer.Option(
            help="Largest share of a tile that is cloud, 0..1. Default: 0.5.",
            rich_help_panel=_TILING,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Share the work among processes: local for this machine; auto or HOST:PORT for a "
            "running cluster.",
            rich_help_panel=_RAY,
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes. Default: as many as the machines have room for.",
            rich_help_panel=_RAY,
        ),
    ] = None,
    ray_cpus: Annotated[
        float | None, typer.Option(help="CPUs of each process. Default: 1.", rich_help_panel=_RAY)
    ] = None,
    ray_gpus: Annotated[
        float | None, typer.Option(help="GPUs of each process. Default: 0.", rich_help_panel=_RAY)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images in a batch of the model. Default: 16 on a CPU, else 64."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Threads that read files ahead.")] = 2,
    as_json: Json = False,
    device: Device = "auto",
) -> None:
    """Encode images and scenes into an archive. A second run adds only new and changed files."""
    if not paths and model is None:
        raise UsageError("give paths to index: images, scenes, folders …")
    numbered = None if shard is None else _shard(shard)
    on_ray = _on_ray(ray, shard, workers=ray_workers, cpus=ray_cpus, gpus=ray_gpus)
    tiling = _tiling(
        size=tile_size,
        stride=stride,
        unit=unit,
        gsd=None if gsd is None else _gsd(gsd),
        edges=edges,
        bands=None if bands is None else tuple(name.strip() for name in bands.split(",")),
        stretch=stretch,
        resampling=resampling,
        min_valid=min_valid,
        cloud_mask=cloud_mask,
        cloud_classes=None if cloud_classes is None else _integers(cloud_classes),
        max_cloud=max_cloud,
    )
    _check(paths or ())
    # On a cluster the workers encode, so this model needs no GPU.
    with waiting("loading the model"):
        opened = _opened(archive, model, store, device if on_ray is None else "cpu")
    with progress("indexing") as tick:
        if on_ray is None:
            report = opened.add(
                paths or (),
                tiling=tiling,
                shard=numbered,
                batch_size=batch_size,
                workers=workers,
                on_progress=tick,
            )
        else:
            from rsir.archive.ray import index_on_ray

            report = index_on_ray(
                opened,
                paths or (),
                tiling=tiling,
                batch_size=batch_size,
                threads=workers,
                device=device,
                on_progress=tick,
                **on_ray,
            )
    if as_json:
        print_json(report.to_dict())
    else:
        print_indexed(report, archive, len(opened))
    if report.skipped and not report.added + report.replaced + report.unchanged:
        raise typer.Exit(RsirError.exit_status)


def _opened(archive: Path, model: str | None, store: str | None, device: str) -> Archive:
    from rsir.archive.archive import Archive
    from rsir.archive.folder.manifest import MODEL
    from rsir.models.encoder import Encoder

    if model is not None:
        return Archive.open_or_create(archive, Encoder.load(model, device=device), store=store)
    if not archive.exists():
        raise UsageError(f"{archive} is a new archive: give the --model to create it with")
    existing = Archive.open(archive)  # raises ArchiveError before the model loads
    if not existing.bands:
        return existing  # it holds imported embeddings and no model; adding raises an error
    encoder = Encoder.load(archive / MODEL, device=device)
    return Archive.open_or_create(archive, encoder, store=store)


def _check(paths: list[str] | tuple[str, ...]) -> None:
    """Raise DataError for a missing path before a model loads and an archive is created."""
    for path in paths:
        if not path:
            raise UsageError(
                "an empty path names nothing; give a file or folder (. is the current one)"
            )
        if "://" in path or Path(path).exists():
            continue
        if not re.search(r"[*?\[]", path):
            raise DataError(f"{path}: no such file or folder; check the path")
        if next(glob.iglob(path, recursive=True), None) is None:  # noqa: PTH207 – as find_sources
            raise DataError(f"{path}: matches no file; check the pattern")


def _tiling(**given: object) -> Tiling | None:
    """The tiling of the given options; None, for the usual tiling, if none is given."""
    from rsir.scenes.stretch import Stretch
    from rsir.scenes.tiling import Tiling

    options = {name: value for name, value in given.items() if value is not None}
    if "stretch" in options:
        options["stretch"] = Stretch.parse(str(options["stretch"]))
    return Tiling(**options) if options else None  # type: ignore[arg-type]  # Tiling checks


def _gsd(text: str) -> float | str:
    if text == "model":
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--gsd {text}: give metres, or model") from None


def _shard(text: str) -> tuple[int, int]:
    parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if parts is None:
        raise UsageError(f"--shard {text}: write it as I/N, e.g. 0/4, 1/4, 2/4, 3/4")
    return int(parts[1]), int(parts[2])


def _on_ray(address: str | None, shard: str | None, **given: float | None) -> dict[str, Any] | None:
    """The arguments of `index_on_ray` that describe the cluster; None without --ray."""
    options = {name: value for name, value in given.items() if value is not None}
    if address is None:
        if options:
            raise UsageError(f"--ray-{next(iter(options))} goes with --ray ADDRESS")
        return None
    if shard is not None:
        raise UsageError("--ray shares the work itself; leave out --shard")
    return {"address": address, **options}


def _integers(text: str) -> tuple[int, ...]:
    found = numbers(text, None, "--cloud-classes", "A,B,C")
    if not all(number.is_integer() for number in found):
        raise UsageError(f"--cloud-classes {text}: give whole numbers")
    return tuple(map(int, found))
