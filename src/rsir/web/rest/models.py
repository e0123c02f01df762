"""What goes in and out of the REST interface, typed: OpenAPI is made from these.

Nothing unknown is taken: a misspelt option is an error, not an option that is left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from rsir.archive.exchange.features import feature
from rsir.archive.search.query_vectors import ById, ByWindow, Examples, Query, Single
from rsir.errors import UsageError
from rsir.ranking import metric_named
from rsir.store.filters.filter import Filter
from rsir.types import is_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rsir.archive.archive import Archive
    from rsir.archive.indexing.run import IndexReport
    from rsir.scenes.tiling import Tiling
    from rsir.store.records.record import Record
    from rsir.types import Hit

_LONGEST_ID = 4096
_LONGEST_WHERE = 10_000
_LONGEST_VECTOR = 65_536
_MOST_CLASSES = 1000
_MOST_IDS = 1000
_MOST_PIXEL = 2**31 - 1
"""Our choice, all of them: far beyond what is asked for by hand."""


def _checked_unicode(text: str) -> str:
    if not is_unicode(text):
        raise ValueError("is not valid Unicode")
    return text


Text = Annotated[str, AfterValidator(_checked_unicode)]
Id = Annotated[Text, Field(min_length=1, max_length=_LONGEST_ID)]
ClassName = Annotated[Text, Field(min_length=1)]
SceneId = Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="`scene` of an item.")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Box = tuple[Longitude, Latitude, Longitude, Latitude]
Corners = Annotated[list[float], Field(min_length=4, max_length=4)]
Time = datetime
Pixel = Annotated[int, Field(ge=-_MOST_PIXEL, le=_MOST_PIXEL)]

Format = Literal["json", "geojson"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# What is asked.


class OfItem(_Model):
    """What looks like the item of this id."""

    id: Id

    def query(self, _archive: Archive, _source: Callable[[str], str]) -> Single:
        """As the archive takes it."""
        return ById(self.id)


class OfVector(_Model):
    """What is near this vector: floats of the archive's dimension, or bytes 0..255 of a code."""

    vector: Annotated[list[Finite], Field(min_length=1, max_length=_LONGEST_VECTOR)]

    def query(self, archive: Archive, _source: Callable[[str], str]) -> Single:
        """As the archive takes it; UsageError for a code that is not of bytes."""
        values: NDArray[Any] = np.array(self.vector)
        if metric_named(archive.metric).kind != "bits":
            # Beyond float32's range a value becomes infinite, which the archive refuses.
            with np.errstate(over="ignore"):
                return values.astype(np.float32)
        if not ((values == values.round()) & (values >= 0) & (values <= 255)).all():
            raise UsageError("a code is a list of bytes: whole numbers from 0 to 255")
        return values.astype(np.uint8)


class OfWindow(_Model):
    """What looks like a part of an indexed scene. One of bbox, point with size, window.

    bbox: west, south, east, north in degrees, WGS 84. point: longitude, latitude; size: side of
    the square around it in metres. window: column, row, width, height in pixels of the scene.
    """

    scene: SceneId
    bbox: Box | None = None
    point: tuple[Longitude, Latitude] | None = None
    size: Annotated[Finite, Field(gt=0, le=1e7)] | None = None
    window: tuple[Pixel, Pixel, Pixel, Pixel] | None = None

    def query(self, _archive: Archive, source: Callable[[str], str]) -> Single:
        """As the archive takes it; errors as those of `ByWindow` and of `source`."""
        return ByWindow(source(self.scene), self.bbox, self.point, self.size, self.window)


One = OfItem | OfVector | OfWindow


class FilterIn(_Model):
    """Which items may be found; all that is given must be met.

    bbox: west, south, east, north in degrees; west > east reaches over the antimeridian.
    geometry: a GeoJSON Polygon or MultiPolygon. start, end: of the interval in which the item was
    taken. classes: names, one of which the property "class" is. where: a condition in SQL on
    fields and properties, e.g. "cloud < 10 AND folder = 'Harbor'".
    """

    bbox: Box | None = None
    geometry: dict[str, JsonValue] | None = None
    start: Time | None = None
    end: Time | None = None
    classes: Annotated[list[ClassName], Field(max_length=_MOST_CLASSES)] | None = None
    where: Annotated[Text, Field(max_length=_LONGEST_WHERE)] | None = None

    def filter(self) -> Filter | None:
        """As archives take it, None if all may be found; UsageError as `Filter` raises it."""
        if self == FilterIn():
            return None
        return Filter(self.bbox, self.geometry, self.start, self.end, self.where, self.classes)


class SearchIn(_Model):
    """One search.

    query: an item, a vector or a window of a scene; it may be left out where there are examples,
    or an uploaded image. like, unlike: examples of what is wanted and of what is not.
    k: hits at most. offset, limit: which of them are answered (all, if not given). filter: which
    may be found. ranking: another than the archive's own, e.g. "hamming". diverse: leave out hits
    that show what a better one shows. min_percentile: only hits that are nearer than this
    percentage of random pairs of the archive.
    """

    query: One | None = None
    like: Annotated[list[One], Field(max_length=1000)] = []
    unlike: Annotated[list[One], Field(max_length=1000)] = []
    k: Annotated[int, Field(ge=1, le=100_000)] = 10
    offset: Annotated[int, Field(ge=0, le=100_000)] = 0
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    filter: FilterIn = FilterIn()
    ranking: Annotated[str, Field(max_length=100)] | None = None
    diverse: bool = False
    min_percentile: Annotated[Finite, Field(ge=0, lt=100)] | None = None

    def asked(
        self,
        archive: Archive,
        source: Callable[[str], str],
        image: Single | None = None,
        like: Sequence[Single] = (),
        unlike: Sequence[Single] = (),
    ) -> Query:
        """The query of all of it and of uploaded images.

        source: of a scene's id. Raises UsageError if there is nothing to look for.
        """
        if self.query is not None and image is not None:
            raise UsageError("give a query or an image, not both; further ones are examples")
        query = image if self.query is None else self.query.query(archive, source)
        liked = (*(one.query(archive, source) for one in self.like), *like)
        not_liked = (*(one.query(archive, source) for one in self.unlike), *unlike)
        if query is not None and not liked and not not_liked:
            return query
        if query is None and not liked:
            raise UsageError("give a query, or examples of what it should be like")
        return Examples(liked, not_liked, query)


class IdsIn(_Model):
    """Ids of items."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=_MOST_IDS)]


class GetIn(IdsIn):
    """Items that are wanted, and whether with their vectors."""

    vectors: bool = False


class TilingIn(_Model):
    """How scenes are cut (`rsir.scenes.tiling.Tiling`); stretch as text: "range:0,3000"."""

    size: Annotated[Finite, Field(gt=0)] = 256
    stride: Annotated[Finite, Field(gt=0)] | None = None
    unit: Literal["pixels", "metres"] = "pixels"
    gsd: Annotated[Finite, Field(gt=0)] | Literal["model"] | None = None
    edges: Literal["shift", "pad"] = "shift"
    bands: Annotated[list[Text], Field(min_length=1, max_length=100)] | None = None
    stretch: Annotated[str, Field(max_length=1000)] = "auto"
    resampling: Annotated[str, Field(max_length=100)] = "bilinear"
    min_valid: Annotated[Finite, Field(ge=0, le=1)] = 0.5

    def tiling(self) -> Tiling:
        """As `Archive.add` takes it; UsageError for what makes no sense."""
        from rsir.scenes.stretch import Stretch
        from rsir.scenes.tiling import Tiling

        given = self.model_dump(exclude={"bands", "stretch"})
        bands = None if self.bands is None else tuple(self.bands)
        return Tiling(**given, bands=bands, stretch=Stretch.parse(self.stretch))


class AdditionIn(_Model):
    """Paths on the service's machine: files and folders below those that it allows."""

    paths: Annotated[list[Id], Field(min_length=1, max_length=_MOST_IDS)]
    tiling: TilingIn | None = None


# What is answered.


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request: str | None = Field(default=None, description="The id of the request, as in the log.")


class TileOut(BaseModel):
    """What is shown of one image or tile of an archive."""

    id: str
    source: str
    scene: str = Field(description="The id of its source, for windows and tiles.")
    footprint: dict[str, JsonValue] | None = Field(description="GeoJSON, WGS 84.")
    datetime: Time | None
    properties: dict[str, JsonValue]


class ItemOut(TileOut):
    """All that is kept of it. content: digest of its file; size: bytes; mtime_ns: of change."""

    content: str
    size: int
    mtime_ns: int
    vector: list[float] | None = None


class HitOut(TileOut):
    """One item found. score: larger is better; distance: smaller is nearer."""

    rank: int = Field(description="From 1.")
    score: float
    distance: float
    percentile: float | None = Field(
        description="Nearer than so many per cent of random pairs of the archive."
    )


class HitsOut(BaseModel):
    """The hits of a search, nearest first: `total` of them, those from `offset` on here."""

    total: int
    offset: int
    searched: int = Field(description="How many items were compared.")
    seconds: float
    hits: list[HitOut]


class FeatureOut(BaseModel):
    """An item or a hit as GeoJSON."""

    type: Literal["Feature"] = "Feature"
    id: str
    geometry: dict[str, JsonValue] | None
    properties: dict[str, JsonValue]


class FeaturesOut(BaseModel):
    """Items or hits as GeoJSON (RFC 7946), for GIS programs."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[FeatureOut]
    total: int
    offset: int


class ItemsOut(BaseModel):
    """Some of an archive's items, ordered by id."""

    total: int
    offset: int
    items: list[ItemOut]
    next: str | None = Field(default=None, description="What to give as `after` for the next ones.")


class ArchiveOut(BaseModel):
    """What an archive is. version: grows with every change."""

    name: str
    ready: bool
    count: int
    metric: str
    dimension: int
    bands: list[str]
    model: dict[str, JsonValue]
    version: int | None = None
    bytes: int | None = None
    created: str | None = None
    rsir: str | None = None


class ArchivesOut(BaseModel):
    """The archives that are served."""

    archives: list[ArchiveOut]


class SceneOut(BaseModel):
    """A source of an archive's items. tiled: whether it was cut into tiles."""

    scene: str
    source: str
    tiles: int
    tiled: bool
    bounds: Corners | None = Field(description="West, south, east, north in degrees, WGS 84.")


class ScenesOut(BaseModel):
    """Some of an archive's sources."""

    total: int
    offset: int
    scenes: list[SceneOut]


class TileJson(BaseModel):
    """Where a scene's map tiles are (TileJSON 3.0)."""

    tilejson: Literal["3.0.0"] = "3.0.0"
    name: str
    tiles: list[str]
    bounds: Corners
    minzoom: int
    maxzoom: int


class DeletedOut(BaseModel):
    """How many items there were, and are not any more."""

    deleted: int


class SkippedOut(BaseModel):
    """A file that was not added, and why."""

    path: str
    reason: str


class ReportOut(BaseModel):
    """What an addition did, as `rsir.archive.indexing.run.IndexReport` has it."""

    added: int
    replaced: int
    unchanged: int
    skipped: list[SkippedOut]
    masks: list[SkippedOut]
    ignored: dict[str, int]
    tiles: int
    left_out: dict[str, int]
    seconds: float
    complete: bool


class AdditionOut(BaseModel):
    """An addition: images are read and encoded one after the other, which takes its time."""

    id: str
    state: Literal["waiting", "running", "done", "failed", "stopped"]
    paths: list[str]
    done: int
    total: int | None
    report: ReportOut | None
    problem: str | None


class AdditionsOut(BaseModel):
    """The last additions, newest first."""

    additions: list[AdditionOut]


class HealthOut(BaseModel):
    """That the service runs."""

    status: Literal["ok"] = "ok"
    version: str


class ReadyOut(BaseModel):
    """Whether all archives can be searched at once; if not, why not, by name."""

    ready: bool
    waiting_for: dict[str, str]


def item_out(record: Record, scene: str, vector: NDArray[Any] | None = None) -> ItemOut:
    """A record, with its vector if that is wanted."""
    return ItemOut(
        id=record.id,
        source=record.source,
        scene=scene,
        footprint=None if record.footprint is None else dict(record.footprint),
        datetime=record.datetime,
        properties=dict(record.properties),
        content=record.content,
        size=record.size,
        mtime_ns=record.mtime_ns,
        vector=None if vector is None else vector.tolist(),
    )


def hit_out(hit: Hit, rank: int, scene: str) -> HitOut:
    """A hit at its rank, from 1."""
    return HitOut(
        id=hit.id,
        source=hit.source,
        scene=scene,
        footprint=None if hit.footprint is None else dict(hit.footprint),
        datetime=hit.datetime,
        properties=dict(hit.properties),
        rank=rank,
        score=hit.score,
        distance=hit.distance,
        percentile=hit.percentile,
    )


def feature_out(item: TileOut) -> FeatureOut:
    """An item or a hit as a GeoJSON feature; its properties stand beside the fields."""
    fields = item.model_dump(mode="json", exclude={"id", "footprint", "properties", "vector"})
    return FeatureOut.model_validate(feature(item.id, item.footprint, fields, item.properties))


def report_out(report: IndexReport) -> ReportOut:
    """The report of an addition."""
    return ReportOut.model_validate(report.to_dict())
