"""An archive of a service, searched as one of this machine is.

    archive = rsir.connect("http://127.0.0.1:8000")
    archive.search("chip.png", k=5)

Needs neither torch nor a model: images are encoded where the archive is.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from rsir.archive.indexing.report import IndexReport, Skipped
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

SECONDS = 60.0
"""Within which an answer must come; our choice: longer than the service lets anything wait."""
TRIES = 4
"""Of a request to a service that is overloaded, after the pause that it asks for. Our choice."""

_PAGE = 1000
"""Records or ids in one request: what the service takes at most."""
_POLL_SECONDS = 0.2


class RemoteArchive:
    """An archive of a service: `search`, `get`, `records`, `add` … as those of `Archive`.

    Errors are those that the archive raises where it is, with their messages; ArchiveError if the
    service cannot be reached, `rsir.web.problems.OverloadedError` if it stays overloaded.
    """

    def __init__(self, http: httpx2.Client, name: str) -> None:
        """Use `rsir.connect`."""
        self._http = http
        self.name = name
        self._about = self._get("")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    @property
    def metric(self) -> str:
        """The name of the distance, for `rsir.ranking.metric_named`."""
        return str(self._about["metric"])

    @property
    def dimension(self) -> int:
        """D of the embeddings, or bits of the codes."""
        return int(self._about["dimension"])

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the archive's model."""
        return str(self._about["model"]["fingerprint"])

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of the images, in order."""
        return tuple(self._about["bands"])

    def __len__(self) -> int:
        return int(self.info()["count"])

    def __repr__(self) -> str:
        return f"RemoteArchive({self.name!r} of {self._http.base_url}: {self.metric})"

    def info(self) -> dict[str, Any]:
        """What the archive is, as the service tells it."""
        found: dict[str, Any] = self._get("")
        return found

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
        """The k nearest images to `query`, as `Archive.search`; its errors, too.

        Image files and pixels, (3, H, W) uint8, are sent to the service.
        """
        asked = query if isinstance(query, Examples) else Examples(query=query)
        body: dict[str, Any] = {
            "k": k,
            "filter": {} if filter is None else _filter_body(filter),
            "ranking": ranking,
            "diverse": diverse,
            "min_percentile": min_percentile,
        }
        files: list[tuple[str, tuple[str, bytes, str]]] = []

        def place(part: QueryLike, field: str) -> dict[str, Any] | None:
            """The part as JSON; None if it goes as a file."""
            sent = self._sent(part)
            if isinstance(sent, bytes):
                files.append((field, ("image", sent, "application/octet-stream")))
                return None
            return sent

        if asked.query is not None:
            body["query"] = place(asked.query, "image")
        body["like"] = [sent for part in asked.like if (sent := place(part, "like"))]
        body["unlike"] = [sent for part in asked.unlike if (sent := place(part, "unlike"))]
        if files:
            answer = self._send(
                "POST", "/search/images", files=files, data={"options": json.dumps(body)}
            )
        else:
            answer = self._send("POST", "/search", json=body)
        return _hits(answer.json(), query)

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
        """`search` for several queries, one after the other."""
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
        kind = np.uint8 if metric.kind == "bits" else np.float32
        rows = [item["vector"] for item in self._items(ids, vectors=True)]
        return np.array(rows, kind).reshape(-1, metric.width(self.dimension))

    def records(self, filter: Filter | None = None) -> Iterator[Record]:
        """All records, or those that meet `filter`, ordered by id; a page at a time."""
        asked = {**_filter_parameters(filter), "limit": _PAGE}
        after: dict[str, Any] = {}
        while True:
            page = self._get("/items", params={**asked, **after})
            yield from map(_record, page["items"])
            if page["next"] is None:
                return
            after = {"after": page["next"]}

    def count(self, filter: Filter | None = None) -> int:
        """How many records meet `filter`; all, if it is not given."""
        page = self._get("/items", params={**_filter_parameters(filter), "limit": 1})
        return int(page["total"])

    def sources(self) -> list[SourceSummary]:
        """What was indexed: each file or scene, how many tiles it has, and where it lies."""
        from rsir.store.records.summary import SourceSummary

        found: list[SourceSummary] = []
        while True:
            page = self._get("/scenes", params={"offset": len(found), "limit": _PAGE})
            for s in page["scenes"]:
                bounds = None if s["bounds"] is None else tuple(s["bounds"])
                found.append(SourceSummary(s["source"], s["tiles"], bounds, s["tiled"]))
            if len(found) >= page["total"] or not page["scenes"]:
                return found

    def thumbnail(self, id: str, size: int = 256) -> NDArray[np.uint8]:
        """A tile to look at, (3, h, w) uint8, its longer side at most `size` pixels; from a JPEG.

        ImageError if its file is gone; ArchiveError for an unknown id.
        """
        from PIL import Image

        answer = self._send("GET", f"/items/{_quoted(id)}/thumbnail", params={"size": size})
        with Image.open(io.BytesIO(answer.content)) as picture:
            return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))

    def add(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        tiling: Tiling | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Add files and folders of the service's machine, and wait until that is done.

        Needs the API key, and paths below the folders that the service allows.
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
            reason = addition["problem"] or "the service was stopped; add the same again"
            raise ArchiveError(f"{self.name}: {reason}")
        report = addition["report"]
        lists = {
            name: tuple(Skipped(**one) for one in report[name]) for name in ("skipped", "masks")
        }
        return IndexReport(**{**report, **lists})

    def delete(self, ids: Sequence[str]) -> int:
        """Forget `ids`; returns how many there were. Needs the API key."""
        return sum(
            int(self._send("POST", "/items/delete", json={"ids": some}).json()["deleted"])
            for some in _pages(ids)
        )

    def _sent(self, part: QueryLike) -> dict[str, Any] | bytes:
        """A part of a query as JSON, or as the bytes of an image file."""
        match as_query(part):
            case ById(id):
                return {"id": id}
            case ByVector(vector):
                return {"vector": vector.tolist()}
            case ByWindow() as window:
                where = {"bbox": window.bbox, "point": window.point, "size": window.size}
                return {"scene": scene_id(window.source), **where, "window": window.window}
            case ByPath(path):
                try:
                    return Path(path).read_bytes()
                except (OSError, ValueError) as error:
                    raise ImageError(f"{path}: cannot be read ({error})") from error
            case ByFile() as file:  # read here, because the service takes plain pictures only
                return _png(file_pixels(file, self.bands))
            case ByPixels(pixels):
                return _png(pixels)
        raise UsageError(f"{part} cannot be sent to a service")

    def _items(self, ids: Sequence[str], *, vectors: bool) -> Iterator[dict[str, Any]]:
        for some in _pages(ids):
            body = {"ids": some, "vectors": vectors}
            yield from self._send("POST", "/items/get", json=body).json()["items"]

    def _get(self, path: str, **more: Any) -> Any:
        return self._send("GET", path, **more).json()

    def _send(self, method: str, path: str, **more: Any) -> httpx2.Response:
        address = f"/api/archives/{_quoted(self.name)}{path}"
        for tried in range(1, TRIES + 1):
            try:
                return sent(self._http, method, address, **more)
            except OverloadedError as error:
                if tried == TRIES:
                    raise
                time.sleep(error.retry_after)
        raise AssertionError("the last try returns or raises")


def connect(
    url: str, archive: str | None = None, *, key: str | None = None, timeout: float = SECONDS
) -> RemoteArchive:
    """An archive of the service at `url`, such as "http://127.0.0.1:8000".

    archive: its name; not needed if the service has only one. key: for adding and deleting.
    timeout: seconds within which an answer must come.

    Raises ArchiveError if there is no such service or archive, UsageError for an address that is
    none or if the archive must be named, MissingExtraError without httpx2.
    """
    try:
        import httpx2
    except ImportError:
        raise MissingExtraError("a service's client", "client") from None
    if urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url!r} is no address of a service; write http://HOST:PORT")
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
    return connected(http, archive)


def connected(http: httpx2.Client, archive: str | None = None) -> RemoteArchive:
    """`connect` by a client that is there; it is closed if that fails."""
    try:
        if archive is None:
            found = sent(http, "GET", "/api/archives").json()["archives"]
            names = [one["name"] for one in found]
            if len(names) != 1:
                raise UsageError(f"name one of the service's archives: {', '.join(names)}")
            (archive,) = names
        return RemoteArchive(http, archive)
    except BaseException:
        http.close()
        raise


def sent(http: httpx2.Client, method: str, address: str, **more: Any) -> httpx2.Response:
    """The answer to one request; what the service says went wrong is raised."""
    import httpx2

    try:
        answer = http.request(method, address, **more)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ArchiveError(
            f"{http.base_url}: the service does not answer ({error}); does it run there?"
        ) from error
    except ValueError as error:  # infinite, not a number, no Unicode
        raise UsageError(f"this cannot be asked: {error}") from error
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    pause = answer.headers.get("retry-after", "")
    raise error_of(problem, answer.status_code, int(pause) if pause.isdecimal() else None)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _pages(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _PAGE):
        yield list(ids[start : start + _PAGE])


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


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
    found: dict[str, Any] = {}
    if body["bbox"] is not None:
        found["bbox"] = ",".join(map(repr, body["bbox"]))
    if body["geometry"] is not None:
        found["geometry"] = json.dumps(body["geometry"])
    if body["start"] or body["end"]:
        found["datetime"] = f"{body['start'] or '..'}/{body['end'] or '..'}"
    for name in ("classes", "where"):
        if body[name] is not None:
            found[name] = body[name]
    return found


def _tiling_body(tiling: Tiling) -> dict[str, Any]:
    if tiling.cloud_mask is not None:
        raise UsageError("cloud masks are not for services; index where the archive is")
    names = ("size", "stride", "unit", "gsd", "edges", "resampling", "min_valid")
    return {
        **{name: getattr(tiling, name) for name in names},
        "bands": None if tiling.bands is None else list(tiling.bands),
        "stretch": str(tiling.stretch),
    }


def _record(item: Mapping[str, Any]) -> Record:
    """The record of an item, as far as the service tells it."""
    return Record(
        id=item["id"],
        source=item["source"],
        content=item.get("content", ""),
        size=item.get("size", 0),
        mtime_ns=item.get("mtime_ns", 0),
        footprint=item["footprint"],
        datetime=_time(item["datetime"]),
        properties=item["properties"],
    )


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


def _hits(answer: Mapping[str, Any], query: QueryLike) -> Hits:
    hits = {
        item["id"]: Hit(
            id=item["id"],
            score=item["score"],
            distance=item["distance"],
            source=item["source"],
            footprint=item["footprint"],
            datetime=_time(item["datetime"]),
            properties=item["properties"],
            percentile=item["percentile"],
        )
        for item in answer["hits"]
    }
    neighbours = [Neighbour(_record(item), item["distance"]) for item in answer["hits"]]
    return Hits(
        neighbours,
        lambda neighbour: hits[neighbour.record.id],
        query=query,
        seconds=answer["seconds"],
        searched=answer["searched"],
    )
