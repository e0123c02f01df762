"""An archive of a service, searched like an archive of this machine.

    archive = rsir.connect("http://127.0.0.1:8000")
    archive.search("chip.png", k=5)

It needs neither torch nor a model, because the service encodes the images.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from rsir.archive.indexing.report import IndexReport
from rsir.archive.search.hits import Hits
from rsir.archive.search.query import (
    ByFile,
    ById,
    ByPath,
    ByPixels,
    ByVector,
    ByWindow,
    Examples,
    QueryLike,
    as_query,
)
from rsir.archive.search.query_vectors import file_pixels
from rsir.errors import ArchiveError, ImageError, MissingExtraError, UsageError
from rsir.ranking import metric_named
from rsir.scenes.bands import RGB
from rsir.store.base import Neighbour
from rsir.store.filters.filter import Filter
from rsir.store.records.record import Record
from rsir.types import Hit
from rsir.web.problems import OverloadedError, error_of
from rsir.web.service.scenes import scene_id

if TYPE_CHECKING:
    import httpx2

    from rsir.scenes.tiling import Tiling
    from rsir.store.records.summary import SourceSummary

TIMEOUT_SECONDS = 60.0
"""Longest wait for a response; our choice: longer than any request waits in the service."""
TRIES = 4
"""Number of times that a request is sent to an overloaded service, after the pauses that the
service asks for; our choice."""

_PAGE = 1000
"""Records or ids in one request: the service's limit."""
_POLL_SECONDS = 0.2
"""Interval between requests for the progress of an addition; our choice."""


class RemoteArchive:
    """An archive of a service, with `search`, `get`, `records`, `add` … as `Archive` has them.

    The methods raise the errors of the archive, with their messages; also ArchiveError if the
    service does not answer, and `rsir.web.problems.OverloadedError` if it stays overloaded.
    """

    def __init__(self, http: httpx2.Client, name: str) -> None:
        """Use `rsir.connect`."""
        self._http = http
        self.name = name
        self._info = self.info()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the service."""
        self._http.close()

    @property
    def metric(self) -> str:
        """The name of the distance, for `rsir.ranking.metric_named`."""
        return str(self._info["metric"])

    @property
    def dimension(self) -> int:
        """D of the embeddings, or bits of the codes."""
        return int(self._info["dimension"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the archive's model."""
        return str(self._info["model"]["fingerprint"])

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of the images, in order."""
        return tuple(self._info["bands"])

    def __len__(self) -> int:
        return int(self.info()["count"])

    def __repr__(self) -> str:
        return f"RemoteArchive({self.name!r} of {self._http.base_url}: {self.metric})"

    def info(self) -> dict[str, Any]:
        """The description of the archive, from the service."""
        info: dict[str, Any] = self._get("")
        return info

    def search(
        self,
        query: QueryLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        ranking: str | None = None,
        diverse: bool = False,
        min_percentile: float | None = None,
    ) -> Hits:
        """The k nearest images to `query`; arguments and errors as for `Archive.search`.

        Image files and pixels, (3, H, W) uint8, are sent to the service. In an archive of other
        bands than three, all `ByFile` of a query must have the same bands and stretch.
        """
        examples = query if isinstance(query, Examples) else Examples(query=query)
        body: dict[str, Any] = {
            "k": k,
            "filter": {} if filter is None else _filter_body(filter),
            "ranking": ranking,
            "diverse": diverse,
            "min_percentile": min_percentile,
        }
        files: list[tuple[str, tuple[str, bytes, str]]] = []

        def add(part: QueryLike, field: str) -> dict[str, Any] | None:
            """The part as JSON; None if it goes as a file."""
            value = self._json_or_file(part)
            if isinstance(value, bytes):
                files.append((field, ("image", value, "application/octet-stream")))
                return None
            return value

        if examples.query is not None:
            body["query"] = add(examples.query, "image")
        body["like"] = [value for part in examples.like if (value := add(part, "like"))]
        body["unlike"] = [value for part in examples.unlike if (value := add(part, "unlike"))]
        if files:
            form = {"options": json.dumps(body | self._reading(examples))}
            response = self._send("POST", "/search/images", files=files, data=form)
        else:
            response = self._send("POST", "/search", json=body)
        return _hits(response.json(), query)

    def search_many(
        self,
        queries: Sequence[QueryLike],
        k: int = 10,
        *,
        filter: Filter | None = None,
        ranking: str | None = None,
        diverse: bool = False,
        min_percentile: float | None = None,
    ) -> list[Hits]:
        """`search` for several queries, one after another."""
        return [
            self.search(
                query,
                k,
                filter=filter,
                ranking=ranking,
                diverse=diverse,
                min_percentile=min_percentile,
            )
            for query in queries
        ]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records under `ids`, in that order; ArchiveError for an unknown id."""
        return [_record(item) for item in self._items(ids, vectors=False)]

    def vectors(self, ids: Sequence[str]) -> NDArray[Any]:
        """The embeddings (N, D) float32 or rows of bytes (N, width) uint8 under `ids`, in order."""
        metric = metric_named(self.metric)
        dtype = np.uint8 if metric.kind == "bits" else np.float32
        rows = [item["vector"] for item in self._items(ids, vectors=True)]
        return np.array(rows, dtype).reshape(-1, metric.width(self.dimension))

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id; read a page at a time."""
        parameters = {**_filter_parameters(filter), "limit": _PAGE}
        while True:
            page = self._get("/items", params=parameters)
            yield from map(_record, page["items"])
            if page["next"] is None:
                return
            parameters["after"] = page["next"]

    def count(self, filter: Filter | None = None) -> int:
        """The number of records that meet `filter`; of all records without it."""
        page = self._get("/items", params={**_filter_parameters(filter), "limit": 1})
        return int(page["total"])

    def sources(self) -> list[SourceSummary]:
        """The indexed files and scenes, each with its number of tiles and its bounds."""
        from rsir.store.records.summary import SourceSummary

        sources: list[SourceSummary] = []
        while True:
            page = self._get("/scenes", params={"offset": len(sources), "limit": _PAGE})
            for scene in page["scenes"]:
                bounds = None if scene["bounds"] is None else tuple(scene["bounds"])
                sources.append(SourceSummary(**_values(SourceSummary, scene) | {"bounds": bounds}))
            if len(sources) >= page["total"] or not page["scenes"]:
                return sources

    def thumbnail(self, id: str, size: int = 256) -> NDArray[np.uint8]:
        """A picture of a tile, (3, h, w) uint8; its longer side has at most `size` pixels.

        It comes as a JPEG. Raises ImageError if the tile's file is gone, ArchiveError for an
        unknown id.
        """
        from PIL import Image

        response = self._send("GET", f"/items/{_quoted(id)}/thumbnail", params={"size": size})
        with Image.open(io.BytesIO(response.content)) as picture:
            return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))

    def add(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        tiling: Tiling | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Add files and folders of the service's machine, and wait until they are added.

        It needs the API key, and paths below the folders that the service allows.
        """
        roots = [paths] if isinstance(paths, str | Path) else paths
        body: dict[str, Any] = {"paths": [str(path) for path in roots]}
        if tiling is not None:
            body["tiling"] = _tiling_body(tiling)
        addition = self._send("POST", "/additions", json=body).json()
        while addition["state"] in ("waiting", "running"):
            time.sleep(_POLL_SECONDS)
            addition = self._get(f"/additions/{addition['id']}")
            if on_progress is not None and addition["total"] is not None:
                on_progress(addition["done"], addition["total"])
        if addition["report"] is None:
            reason = addition["problem"] or "the service was stopped; add the same paths again"
            raise ArchiveError(f"{self.name}: {reason}")
        return IndexReport.from_dict(addition["report"])

    def delete(self, ids: Sequence[str]) -> int:
        """Delete `ids`, but not their files; returns how many existed. Needs the API key."""
        return sum(
            int(self._send("POST", "/items/delete", json={"ids": page}).json()["deleted"])
            for page in _pages(ids)
        )

    def _reading(self, examples: Examples) -> dict[str, Any]:
        """How the service must read the files of a query."""
        files = [part for part in examples.parts if isinstance(part, ByFile)]
        if not files or len(self.bands) == len(RGB):
            return {}
        first, *others = (
            {"bands": None if file.bands is None else list(file.bands), "stretch": file.stretch}
            for file in files
        )
        if any(other != first for other in others):
            raise UsageError("a query to a service reads all files by the same bands and stretch")
        return first

    def _json_or_file(self, part: QueryLike) -> dict[str, Any] | bytes:
        """A part of a query as JSON, or as the bytes of an image file."""
        match as_query(part):
            case ById(id):
                return {"id": id}
            case ByVector(vector):
                return {"vector": vector.tolist()}
            case ByWindow() as window:
                rectangle = {"bbox": window.bbox, "point": window.point, "size": window.size}
                return {"scene": scene_id(window.source), **rectangle, "window": window.window}
            case ByPath(path):
                return _bytes_of(path)
            case ByFile() as file:
                if len(self.bands) != len(RGB):
                    return _bytes_of(file.path)  # no picture holds such pixels
                return _png(file_pixels(file, self.bands))  # smaller than most files
            case ByPixels(pixels):
                return _png(pixels)
        raise UsageError(f"{part} cannot be sent to a service")

    def _items(self, ids: Sequence[str], *, vectors: bool) -> Iterator[dict[str, Any]]:
        for page in _pages(ids):
            body = {"ids": page, "vectors": vectors}
            yield from self._send("POST", "/items/get", json=body).json()["items"]

    def _get(self, path: str, **options: Any) -> Any:
        return self._send("GET", path, **options).json()

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        address = f"/api/archives/{_quoted(self.name)}{path}"
        for _ in range(TRIES - 1):
            try:
                return send(self._http, method, address, **options)
            except OverloadedError as error:
                time.sleep(error.retry_after)
        return send(self._http, method, address, **options)


def connect(
    url: str,
    archive: str | None = None,
    *,
    key: str | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> RemoteArchive:
    """An archive of the service at `url`, such as "http://127.0.0.1:8000".

    archive: its name; not needed if the service has only one archive. key: for adding and deleting.
    timeout: limit for a response in seconds.

    Raises ArchiveError for an unknown service or archive; UsageError for an invalid address, or
    without a name if the service has several archives; MissingExtraError without httpx2.
    """
    try:
        import httpx2
    except ImportError:
        raise MissingExtraError("a service's client", "client") from None
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url!r} is not the address of a service; write http://HOST:PORT")
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
    return connect_with(http, archive)


def connect_with(http: httpx2.Client, archive: str | None = None) -> RemoteArchive:
    """`connect` with an HTTP client of the service; closes the client after a failure."""
    try:
        if archive is None:
            archives = send(http, "GET", "/api/archives").json()["archives"]
            names = [entry["name"] for entry in archives]
            if len(names) != 1:
                raise UsageError(f"name one of the service's archives: {', '.join(names)}")
            (archive,) = names
        return RemoteArchive(http, archive)
    except BaseException:
        http.close()
        raise


def send(http: httpx2.Client, method: str, address: str, **options: Any) -> httpx2.Response:
    """The response to a request; raises the error of a problem that the service reports."""
    import httpx2

    try:
        response = http.request(method, address, **options)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ArchiveError(
            f"{http.base_url}: the service does not answer ({error}); does it run there?"
        ) from error
    except ValueError as error:  # an infinite value, a NaN, or invalid Unicode
        raise UsageError(f"the request cannot be sent: {error}") from error
    if response.is_success:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = None
    pause = response.headers.get("retry-after", "")
    raise error_of(problem, response.status_code, int(pause) if pause.isdecimal() else None)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _pages(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _PAGE):
        yield list(ids[start : start + _PAGE])


def _filter_body(filter: Filter) -> dict[str, Any]:
    return {
        "bbox": filter.bbox,
        "geometry": None if filter.geometry is None else dict(filter.geometry),
        "start": None if filter.start is None else filter.start.isoformat(),
        "end": None if filter.end is None else filter.end.isoformat(),
        "classes": None if filter.classes is None else list(filter.classes),
        "where": filter.where,
    }


def _filter_parameters(filter: Filter | None) -> dict[str, Any]:
    """The filter as parameters of an address."""
    if filter is None:
        return {}
    body = _filter_body(filter)
    start, end = body.pop("start"), body.pop("end")
    if filter.bbox is not None:
        body["bbox"] = ",".join(map(repr, filter.bbox))
    if filter.geometry is not None:
        body["geometry"] = json.dumps(body["geometry"])
    if start or end:
        body["datetime"] = f"{start or '..'}/{end or '..'}"
    return {name: value for name, value in body.items() if value is not None}


def _tiling_body(tiling: Tiling) -> dict[str, Any]:
    if tiling.cloud_mask is not None:
        raise UsageError("a service does not take cloud masks; index where the archive is")
    names = ("size", "stride", "unit", "gsd", "edges", "resampling", "min_valid")
    return {
        **{name: getattr(tiling, name) for name in names},
        "bands": None if tiling.bands is None else list(tiling.bands),
        "stretch": str(tiling.stretch),
    }


def _values(kind: type, item: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an item in JSON for the fields of a dataclass."""
    values = {field.name: item[field.name] for field in fields(kind) if field.name in item}
    if values.get("datetime") is not None:
        values["datetime"] = datetime.fromisoformat(values["datetime"])
    return values


def _record(item: Mapping[str, Any]) -> Record:
    """The record of an item or a hit; that of a hit lacks content digest, size and mtime."""
    return Record(**{"content": ""} | _values(Record, item))


def _bytes_of(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({error})") from error


def _png(pixels: NDArray[Any]) -> bytes:
    """A picture (3, H, W) uint8 as a PNG file; UsageError for other arrays."""
    from PIL import Image

    if pixels.dtype != np.uint8 or len(pixels) != 3:
        raise UsageError(
            f"a picture is (3, H, W) uint8, not an array {pixels.shape} {pixels.dtype}"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, "PNG")
    return buffer.getvalue()


def _hits(body: Mapping[str, Any], query: QueryLike) -> Hits:
    items = {item["id"]: item for item in body["hits"]}
    return Hits(
        [Neighbour(_record(item), item["distance"]) for item in body["hits"]],
        lambda neighbour: Hit(**_values(Hit, items[neighbour.record.id])),
        query=query,
        seconds=body["seconds"],
        searched=body["searched"],
    )
