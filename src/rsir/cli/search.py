"""The command that searches an archive."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsir.cli.filters import (
    Bbox,
    Classes,
    From,
    Taken,
    Where,
    Within,
    box,
    filter_of,
    numbers,
    say_unknown,
)
from rsir.cli.hits_table import hits_table
from rsir.cli.options import Folder, Json, full_ids, opened
from rsir.cli.printing import say, waiting
from rsir.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rsir.archive.archive import Archive
    from rsir.archive.search.hits import Hits
    from rsir.archive.search.query import ByWindow, Query

    Reading = Callable[[str | Path], Query]

app = typer.Typer()

_QUERY = "Query, instead of an image"
_HOW = "How to search"


class OutputFormat(StrEnum):
    """The formats in which `rsir search` shows hits."""

    table = "table"
    json = "json"
    geojson = "geojson"
    csv = "csv"
    html = "html"


@app.command()
def search(
    archive: Folder,
    image: Annotated[Path | None, typer.Argument(help="The query image.")] = None,
    k: Annotated[int, typer.Option("-k", help="Number of hits.")] = 10,
    format: Annotated[
        OutputFormat | None,
        typer.Option(
            help="Format of the output. Default: by the suffix of --out (.json, .geojson, .csv, "
            ".html), else table."
        ),
    ] = None,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")] = None,
    id: Annotated[
        str | None,
        typer.Option(
            help="Id of an image in the archive, or its beginning.", rich_help_panel=_QUERY
        ),
    ] = None,
    vector: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="An embedding, or the bytes of a hash code, saved by NumPy.",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="An indexed scene; one of the next options selects a part of it.",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="C,R,W,H",
            help="Column, row, width and height in --scene, in pixels.",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    scene_bbox: Annotated[
        str | None,
        typer.Option(
            metavar="W,S,E,N", help="A box in --scene, in degrees.", rich_help_panel=_QUERY
        ),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option(
            metavar="LON,LAT",
            help="The centre of a square in --scene; needs --size.",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    size: Annotated[
        float | None,
        typer.Option(
            metavar="METRES", help="Side of the square around --point.", rich_help_panel=_QUERY
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Bands of image files, as for `rsir index`. Default: the bands of the model.",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    stretch: Annotated[
        str | None,
        typer.Option(help="Stretch of image files, as for `rsir index`.", rich_help_panel=_QUERY),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE|id:ID",
            help="A positive example, with or without a query; repeatable.",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IMAGE|id:ID",
            help="A negative example; repeatable.",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    bbox: Bbox = None,
    within: Within = None,
    taken: Taken = None,
    where: Where = None,
    classes: Classes = None,
    sources: From = None,
    ranking: Annotated[
        str | None,
        typer.Option(
            help="Instead of the archive's ranking, which is exact: hamming for adaptive-hamming, "
            "approximate for embeddings.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    recall: Annotated[
        bool,
        typer.Option(
            "--recall",
            help="Also print the share of the exact hits that --ranking finds.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    diverse: Annotated[
        bool,
        typer.Option(
            "--diverse",
            help="Show only the best of hits that overlap or look nearly the same.",
            rich_help_panel=_HOW,
        ),
    ] = False,
    min_percentile: Annotated[
        float | None,
        typer.Option(
            help="Show only hits that are nearer than this percentage of random pairs of the "
            "archive, e.g. 99.9.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            help="Search this earlier version, see `rsir info --versions`.",
            rich_help_panel=_HOW,
        ),
    ] = None,
) -> None:
    """Find the images of an archive that are most similar to a query."""
    if recall and ranking is None:
        raise UsageError("--recall compares a --ranking with the exact one; give a --ranking")
    by_name = {f".{each}": each for each in OutputFormat if each is not OutputFormat.table}
    if as_json:
        if format not in (None, OutputFormat.json):
            raise UsageError(f"--json and --format {format.value} are two formats; give one")
        format = OutputFormat.json
    if format is None:
        format = by_name.get("" if out is None else out.suffix.lower(), OutputFormat.table)
    searched = opened(archive, version)
    part: Query | None = None
    if (scene, window, scene_bbox, point, size) != (None,) * 5:
        part = _window(scene, window, scene_bbox, point, size)
        if format is OutputFormat.html:  # the page shows the part too: read it once
            part = _pixels(searched, part)
    id, *_ = full_ids(searched, [id]) if id is not None else [None]
    like, unlike = (_full(searched, examples or ()) for examples in (like, unlike))
    query = _query(image, id, vector, part, like, unlike, _reading(bands, stretch))
    filter = filter_of(bbox, within, taken, where, classes, sources)
    if query.holds_image:
        with waiting("loading the model"):
            _ = searched.encoder  # now, so that the printed time is the time of the search
    say_unknown(searched, filter)
    hits = searched.search(
        query, k, filter=filter, ranking=ranking, diverse=diverse, min_percentile=min_percentile
    )
    text = _shown(searched, hits, format, short=out is None and sys.stdout.isatty())
    if out is None:
        typer.echo(text, nl=not text.endswith("\n"))
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Without a draft, because OUT may be /dev/stdout or a pipe; line ends stay (\r\n in CSV).
        with out.open("w", encoding="utf-8", newline="") as file:
            file.write(text if text.endswith("\n") else text + "\n")
        say(f"wrote {out}")
    searching = hits.seconds - hits.encoding_seconds
    encoding = f", query encoded in {hits.encoding_seconds * 1000:.0f} ms"
    say(
        f"{hits.searched} images searched in {searching * 1000:.0f} ms"
        + (encoding if query.holds_image else "")
    )
    if not hits and hits.searched and min_percentile is not None:
        say(f"no image reaches the percentile {min_percentile}: nothing here looks like the query")
    if recall:
        found = searched.recall([query], k, str(ranking), filter=filter)
        say(f"recall@{k} of {ranking}: {found:.4f}")


def _query(
    image: Path | None,
    id: str | None,
    vector: Path | None,
    part: Query | None,
    like: Sequence[str],
    unlike: Sequence[str],
    reading: Reading | None,
) -> Query:
    """The query that the options describe.

    reading: how to read an image file, if --bands or --stretch are given. Raises UsageError
    without a query, and for several queries.
    """
    from rsir.archive.search.query import ById, ByPath, ByVector, Examples

    read = reading or ByPath
    queries: list[Query] = [] if part is None else [part]
    if image is not None:
        queries.append(read(image))
    if id is not None:
        queries.append(ById(id))
    if vector is not None:
        queries.append(ByVector(_vector(vector)))
    if len(queries) > 1 or not (queries or like):
        raise UsageError(
            "give one query: an IMAGE, --id, --vector, --scene or --like; --like and --unlike may "
            "be repeated and go with any query"
        )
    query = queries[0] if queries else None
    if query is None or like or unlike:
        query = Examples(
            [_example(read, text) for text in like],
            [_example(read, text) for text in unlike],
            query,
        )
    if reading is not None and "file" not in {part.kind for part in query.parts}:
        raise UsageError("--bands and --stretch apply to image files; give one")
    return query


def _full(archive: Archive, examples: Sequence[str]) -> list[str]:
    """Examples, with whole ids."""
    ids = full_ids(archive, [text[3:] for text in examples if text.startswith("id:")])
    whole = iter(ids)
    return [f"id:{next(whole)}" if text.startswith("id:") else text for text in examples]


def _example(read: Reading, text: str) -> Query:
    from rsir.archive.search.query import ById

    return ById(text.removeprefix("id:")) if text.startswith("id:") else read(text)


def _reading(bands: str | None, stretch: str | None) -> Reading | None:
    """The function that makes a query of an image file; None if neither option is given."""
    from rsir.archive.search.query import ByFile
    from rsir.scenes.tiling import Tiling

    if bands is None and stretch is None:
        return None
    names = None if bands is None else tuple(name.strip() for name in bands.split(","))
    _ = Tiling(bands=names)  # raises UsageError for wrong bands
    return partial(ByFile, bands=names, stretch="auto" if stretch is None else stretch)


def _vector(file: Path) -> NDArray[Any]:
    import numpy as np

    try:
        # Mapped: then its header cannot ask for more memory than the file has bytes.
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError):
        # NumPy's own message advises to trust the file.
        raise DataError(f"{file}: is no .npy file of numbers; write one with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.ndim != 1:
        raise UsageError(f"{file}: give an array with one axis, saved with numpy.save")
    return found


def _window(
    scene: str | None,
    window: str | None,
    bbox: str | None,
    point: str | None,
    size: float | None,
) -> ByWindow:
    from rsir.archive.search.query import ByWindow

    if scene is None:
        raise UsageError(
            "--window, --scene-bbox, --point and --size select a part of a --scene; give one"
        )
    pixels = None if window is None else numbers(window, 4, "--window", "C,R,W,H")
    if pixels is not None and not all(number.is_integer() for number in pixels):
        raise UsageError(f"--window {window}: give whole pixels")
    column, row, width, height = map(int, pixels or (0, 0, 0, 0))
    middle = None if point is None else numbers(point, 2, "--point", "LON,LAT")
    return ByWindow(
        scene,
        bbox=None if bbox is None else box(bbox, "--scene-bbox"),
        point=None if middle is None else (middle[0], middle[1]),
        size=size,
        window=None if pixels is None else (column, row, width, height),
    )


def _pixels(archive: Archive, query: Query) -> Query:
    from rsir.archive.search.query import ByPixels

    return ByPixels(archive.pixels(query), str(query))


def _shown(archive: Archive, hits: Hits, format: OutputFormat, *, short: bool) -> str:
    if format is OutputFormat.table:
        return hits_table(hits, short=short)
    if format is OutputFormat.json:
        return json.dumps([hit.to_dict() for hit in hits], indent=2, ensure_ascii=False)
    if format is OutputFormat.html:
        return _page(archive, hits)
    from rsir.archive.exchange import features

    if format is OutputFormat.csv:
        return features.table(hits)
    return json.dumps(features.collection(hits), ensure_ascii=False)


def _page(archive: Archive, hits: Hits) -> str:
    """An HTML page of the hits, with a picture of the query if it holds an image."""
    from rsir.archive.pictures.cards import Section, page
    from rsir.archive.pictures.thumbnails import visible
    from rsir.archive.search.query import ByFile, ById, ByPath, Examples, as_query

    query = as_query(hits.query)
    if isinstance(query, Examples) and query.query is not None:
        query = query.parts[0]
    picture: Any = None
    name = str(query)
    match query:
        case ByPath(path):
            picture, name = path, Path(path).name
        case ByFile(path):
            picture, name = visible(archive.pixels(query), archive.bands), Path(path).name
        case ById(id):
            (picture,) = archive.get([id])
        case Examples():
            name = "examples"
        case _ if query.holds_image:
            picture = visible(archive.pixels(query), archive.bands)
    section = Section(
        hits,
        picture,
        took=hits.seconds,
        searched=hits.searched,
        name=None if picture is None else name,
    )
    return page(section, title=f"Images like {name}")
