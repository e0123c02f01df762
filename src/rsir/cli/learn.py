"""The commands about methods and models: methods, train, adapt, cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    readable_only,
)
from rsir.cli.printing import print_timing, progress, say, waiting
from rsir.errors import UsageError

app = typer.Typer()


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="Explain this method and its options; or trainer, for all settings."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods with their options and default values, or explain one."""
    import dataclasses
    import inspect

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
    from rsir.training.settings import TrainingSettings

    if name is not None:
        explained: list[type] = [TrainingSettings]
        if name != "trainer":
            kind = method_type(name)  # raises UsageError, with the names, for an unknown one
            rows = [row for row in rows if row["name"] == name]
            explained = [kind, kind.options_type]
        if not as_json:
            typer.echo("\n\n".join(inspect.getdoc(each) or each.__name__ for each in explained))
            typer.echo()

    trainer = dataclasses.asdict(TrainingSettings())
    if as_json:
        print_json({"methods": rows, "trainer": trainer})
        return
    if name in (None, "trainer"):
        settings = {"name": "trainer", "title": "settings of every method", "defaults": trainer}
        rows = [*(rows if name is None else ()), settings]
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
    split: Annotated[Path | None, typer.Option(help="File of an existing split.")] = None,
    train_share: Annotated[
        float | None, typer.Option(help="Share of each class to train on. Default: 0.8.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of split and training. Default: 0.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs; 0 keeps the starting weights.")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="Length of the hash code in bits.")] = None,
    labels: Labels = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Train a method on a labelled set and save the best epoch.

    The same command continues an interrupted run, and does nothing if the run is complete.
    """
    import dataclasses

    with waiting("loading torch"):
        from rsir.data import splits
        from rsir.methods import method_type
        from rsir.training.settings import resolve_settings
        from rsir.training.train import train as run

    kind = method_type(method)
    chosen = parse_assignments(set_ or [])
    chosen |= {} if seed is None else {"seed": seed}
    chosen |= {} if epochs is None else {"epochs": epochs}
    if bits is not None:
        if "bits" not in {field.name for field in dataclasses.fields(kind.options_type)}:
            raise UsageError(f"--bits applies to methods that learn hash codes; {method} does not")
        chosen |= {"bits": bits}
    options, settings = resolve_settings(kind, chosen)
    if split is None:
        images = readable_only(labelled_set(data, labels))
        share = 0.8 if train_share is None else train_share
        parts = splits.make(images, train=share, val=settings.validation, seed=settings.seed)
        root = images.root
    else:
        if labels is not None or train_share is not None or "validation" in chosen:
            raise UsageError("--split fixes labels and shares; leave out their options")
        parts = splits.read(split)
        images = parts.labelled(data, "train", "val")
        readable = readable_only(images)
        parts = parts.without(set(images.paths) - set(readable.paths))
        root = images.root
    run(
        method,
        parts,
        root,
        out,
        backbone=backbone,
        weights=weights,
        options=options,
        settings=settings,
        on_epoch=say,
        progress=progress,
    )
    if as_json:
        from rsir.models.model import read_card

        print_json({"model": str(out), **read_card(out)["training"]})
    else:
        say(f"the model is in {out}")


@app.command()
def adapt(
    model: Annotated[str, typer.Argument(help="A run folder, or hf:owner/name.")],
    paths: Annotated[list[Path], typer.Argument(help="The gallery: images and folders of images.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapted model.")],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Adapt a model to a gallery, without labels: fit the PCA of jsrt.

    Training adapts a model to the training images; this command saves one for another gallery.
    """
    with waiting("loading torch"):
        from rsir.models.adapt import adapt_to
        from rsir.models.encoder import Encoder
        from rsir.sources.folders import find_images

    files, _ = find_images(paths)
    with progress("encoding") as tick:
        _, adapted = adapt_to(Encoder.load(model, device=device), files, out, on_progress=tick)
    for path, reason in adapted.skipped:
        say(f"skipped {path}: {reason.removeprefix(f'{path}: ')}")
    if as_json:
        print_json({"model": str(out), **adapted.to_dict()})
        return
    typer.echo(
        f"adapted to {adapted.images} images, {len(adapted.skipped)} skipped ("
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
    classes: Annotated[int, typer.Option(min=1, help="Number of classes, for a classifier.")] = 21,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="KEY=VALUE", help="Set an option of the method."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also measure times on this machine, with random weights."),
    ] = False,
    gallery: Annotated[
        int, typer.Option(min=1, help="Number of images that a timed search compares.")
    ] = 10_000,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits of a timed search.")] = 100,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Count a method's parameters and multiply-adds; --measure adds times and storage."""
    import dataclasses

    from rsir.cost.count import cost as count
    from rsir.models.encoder import Encoder
    from rsir.models.model import build_model

    names = tuple(f"class {i}" for i in range(classes))
    options = parse_assignments(set_ or [])
    built = build_model(method, backbone=backbone, spec=size, classes=names, options=options)
    found = count(built)
    timed = None
    if measure:
        from rsir.cost.timing import measure as time_it

        timed = time_it(Encoder(built, device=device), gallery=gallery, k=k)
    if as_json:
        plain = dataclasses.asdict(found)
        print_json(plain | ({} if timed is None else timed.to_dict()))
        return
    typer.echo(
        f"{method} on {backbone}: {found.parameters / 1e6:.3f} M parameters, "
        f"{found.multiply_adds / 1e9:.3f} G multiply-adds for an image of {size} × {size}"
    )
    if timed is not None:
        print_timing(timed)
