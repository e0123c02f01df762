"""Requests and responses of the REST interface as types; OpenAPI is made from them.

Requests with unknown fields are refused, so that a misspelt option is an error.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, computed_field

from rsir.archive.exchange.features import feature
from rsir.archive.search.query import ById, ByWindow, Examples, QueryLike
from rsir.errors import UsageError
from rsir.ranking import metric_named
from rsir.store.filters.filter import Filter
from rsir.types import is_unicode
from rsir.web.service.additions import AdditionState
from rsir.web.service.scenes import scene_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rsir.archive.archive import Archive
    from rsir.scenes.tiling import Tiling
    from rsir.store.records.record import Record
    from rsir.types import Hit

_LONGEST_ID = 4096
_LONGEST_WHERE = 10_000
_LONGEST_VECTOR = 65_536
_MOST_CLASSES = 1000
_MOST_IDS = 1000
_MOST_PIXEL = 2**31 - 1
"""Limits of values in requests; our choice: far more than anybody needs."""


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

ResultFormat = Literal["json", "geojson"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Response(BaseModel):
    """Validates from dataclasses, too."""

    model_config = ConfigDict(from_attributes=True)


# Requests.


class ItemQuery(_Request):
    """Search for images like the item of this id."""

    id: Id

    def to_query(self, _archive: Archive, _source: Callable[[str], str]) -> QueryLike:
        """The query for `Archive.search`."""
        return ById(self.id)


class VectorQuery(_Request):
    """Search near a vector: floats of the archive's dimension, or the bytes 0 to 255 of a code."""

    vector: Annotated[list[Finite], Field(min_length=1, max_length=_LONGEST_VECTOR)]

    def to_query(self, archive: Archive, _source: Callable[[str], str]) -> QueryLike:
        """The query for `Archive.search`; UsageError for a code that does not consist of bytes."""
        values: NDArray[Any] = np.array(self.vector)
        if metric_named(archive.metric).kind != "bits":
            # A value beyond float32's range becomes infinite, which the archive refuses.
            with np.errstate(over="ignore"):
                return values.astype(np.float32)
        if not ((values == values.round()) & (values >= 0) & (values <= 255)).all():
            raise UsageError("a code is a list of bytes: whole numbers from 0 to 255")
        return values.astype(np.uint8)


class WindowQuery(_Request):
    """Search for images like a part of an indexed scene: one of bbox, point with size, window.

    bbox: west, south, east, north in degrees, WGS 84. point: longitude, latitude; size: side of
    the square around it in metres. window: column, row, width, height in pixels of the scene.
    """

    scene: SceneId
    bbox: Box | None = None
    point: tuple[Longitude, Latitude] | None = None
    size: Annotated[Finite, Field(gt=0, le=1e7)] | None = None
    window: tuple[Pixel, Pixel, Pixel, Pixel] | None = None

    def to_query(self, _archive: Archive, source: Callable[[str], str]) -> QueryLike:
        """The query for `Archive.search`; errors: those of `ByWindow` and of `source`."""
        return ByWindow(source(self.scene), self.bbox, self.point, self.size, self.window)


SingleQuery = ItemQuery | VectorQuery | WindowQuery


class FilterIn(_Request):
    """A filter of items; an item must meet every condition that is given.

    bbox: west, south, east, north in degrees; west > east for a box over the antimeridian.
    geometry: a GeoJSON Polygon or MultiPolygon. start, end: the interval of acquisition times.
    classes: the property "class" must be one of these. where: a condition in SQL on fields and
    properties, e.g. "cloud < 10 AND folder = 'Harbor'".
    """

    bbox: Box | None = None
    geometry: dict[str, JsonValue] | None = None
    start: Time | None = None
    end: Time | None = None
    classes: Annotated[list[ClassName], Field(max_length=_MOST_CLASSES)] | None = None
    where: Annotated[Text, Field(max_length=_LONGEST_WHERE)] | None = None

    def to_filter(self) -> Filter | None:
        """The filter for `Archive.search`; None without a condition; UsageError as `Filter`."""
        if self == FilterIn():
            return None
        return Filter(self.bbox, self.geometry, self.start, self.end, self.where, self.classes)


class SearchIn(_Request):
    """One search.

    query: an item, a vector or a window of a scene; optional beside examples or an uploaded
    image. like, unlike: positive and negative examples. k: most hits. offset, limit: the hits in
    the response (default: all). filter: of the items to search. ranking: another than the
    archive's own, e.g. "hamming". diverse: leave out near-duplicates of better hits.
    min_percentile: only hits that are nearer than this
    percentage of random pairs of the archive.
    """

    query: SingleQuery | None = None
    like: Annotated[list[SingleQuery], Field(max_length=1000)] = []
    unlike: Annotated[list[SingleQuery], Field(max_length=1000)] = []
    k: Annotated[int, Field(ge=1, le=100_000)] = 10
    offset: Annotated[int, Field(ge=0, le=100_000)] = 0
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    filter: FilterIn = FilterIn()
    ranking: Annotated[str, Field(max_length=100)] | None = None
    diverse: bool = False
    min_percentile: Annotated[Finite, Field(ge=0, lt=100)] | None = None

    def to_query(
        self,
        archive: Archive,
        source: Callable[[str], str],
        image: QueryLike | None = None,
        like: Sequence[QueryLike] = (),
        unlike: Sequence[QueryLike] = (),
    ) -> QueryLike:
        """The query for `Archive.search`, with uploaded images.

        source: the function from a scene's id to its source. image, like, unlike: uploaded images.
        Raises UsageError without a query and without positive examples.
        """
        if self.query is not None and image is not None:
            raise UsageError("give a query or an image, not both; give further images as examples")
        query = image if self.query is None else self.query.to_query(archive, source)
        liked = (*(part.to_query(archive, source) for part in self.like), *like)
        not_liked = (*(part.to_query(archive, source) for part in self.unlike), *unlike)
        if query is not None and not liked and not not_liked:
            return query
        if query is None and not liked:
            raise UsageError("give a query, or positive examples")
        return Examples(liked, not_liked, query)


class IdsIn(_Request):
    """Ids of items."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=_MOST_IDS)]


class GetIn(IdsIn):
    """Ids of items, and whether to return their vectors."""

    vectors: bool = False


class TilingIn(_Request):
    """How to cut scenes (`rsir.scenes.tiling.Tiling`); stretch as text, e.g. "range:0,3000"."""

    size: Annotated[Finite, Field(gt=0)] = 256
    stride: Annotated[Finite, Field(gt=0)] | None = None
    unit: Literal["pixels", "metres"] = "pixels"
    gsd: Annotated[Finite, Field(gt=0)] | Literal["model"] | None = None
    edges: Literal["shift", "pad"] = "shift"
    bands: Annotated[list[Text], Field(min_length=1, max_length=100)] | None = None
    stretch: Annotated[str, Field(max_length=1000)] = "auto"
    resampling: Annotated[str, Field(max_length=100)] = "bilinear"
    min_valid: Annotated[Finite, Field(ge=0, le=1)] = 0.5

    def to_tiling(self) -> Tiling:
        """The tiling for `Archive.add`; UsageError for values that make no sense."""
        from rsir.scenes.stretch import Stretch
        from rsir.scenes.tiling import Tiling

        values = self.model_dump(exclude={"bands", "stretch"})
        bands = None if self.bands is None else tuple(self.bands)
        return Tiling(**values, bands=bands, stretch=Stretch.parse(self.stretch))


class AdditionIn(_Request):
    """Files and folders on the service's machine, below the folders that the service allows."""

    paths: Annotated[list[Id], Field(min_length=1, max_length=_MOST_IDS)]
    tiling: TilingIn | None = None


# Responses.


class Problem(BaseModel):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request: str | None = Field(default=None, description="The id of the request, also in the log.")


class TileOut(_Response):
    """An image or tile of an archive."""

    id: str
    source: str
    footprint: dict[str, JsonValue] | None = Field(description="GeoJSON, WGS 84.")
    datetime: Time | None
    properties: dict[str, JsonValue]

    @computed_field(description="The id of the source, for windows and map tiles.")
    def scene(self) -> str:
        """The id of the source in addresses."""
        return scene_id(self.source)


class ItemOut(TileOut):
    """An item. content: digest of its file; size: in bytes; mtime_ns: time of the last change."""

    content: str
    size: int
    mtime_ns: int
    vector: list[float] | None = None


class HitOut(TileOut):
    """A hit. score: larger is better; distance: smaller is better."""

    rank: int = Field(description="From 1.")
    score: float
    distance: float
    percentile: float | None = Field(
        description="Nearer than so many per cent of random pairs of the archive."
    )


class HitsOut(BaseModel):
    """The hits of a search, nearest first: those from `offset` on, of `total`."""

    total: int
    offset: int
    searched: int = Field(description="The number of items that were compared.")
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
    next: str | None = Field(default=None, description="The value of `after` for the next page.")


class ArchiveOut(BaseModel):
    """An archive. version: grows with every change."""

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
    """The archives of the service."""

    archives: list[ArchiveOut]


class SceneOut(_Response):
    """A source of an archive's items. tiled: whether it was cut into tiles."""

    source: str
    tiles: int
    tiled: bool
    bounds: Corners | None = Field(description="West, south, east, north in degrees, WGS 84.")

    @computed_field
    def scene(self) -> str:
        """The id of the source in addresses."""
        return scene_id(self.source)


class ScenesOut(BaseModel):
    """Some of an archive's sources."""

    total: int
    offset: int
    scenes: list[SceneOut]


class TileJson(BaseModel):
    """The address and the extent of a scene's map tiles (TileJSON 3.0)."""

    tilejson: Literal["3.0.0"] = "3.0.0"
    name: str
    tiles: list[str]
    bounds: Corners
    minzoom: int
    maxzoom: int


class DeletedOut(BaseModel):
    """The number of items that were deleted."""

    deleted: int


class SkippedOut(_Response):
    """A file that was not added, and why."""

    path: str
    reason: str


class ReportOut(_Response):
    """The result of an addition (`rsir.archive.indexing.report.IndexReport`)."""

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


class AdditionOut(_Response):
    """An addition and its progress. done, total: number of files."""

    id: str
    state: AdditionState
    paths: list[str]
    done: int
    total: int | None
    report: ReportOut | None
    problem: str | None


class AdditionsOut(BaseModel):
    """The last additions, newest first."""

    additions: list[AdditionOut]


class HealthOut(BaseModel):
    """The service runs."""

    status: Literal["ok"] = "ok"
    version: str


class ReadyOut(BaseModel):
    """Whether all archives are loaded; waiting_for: the reason, by name, for those that are not."""

    ready: bool
    waiting_for: dict[str, str]


def item_out(record: Record, vector: NDArray[Any] | None = None) -> ItemOut:
    """A record, with its vector if that is given."""
    item = ItemOut.model_validate(record)
    return item if vector is None else item.model_copy(update={"vector": vector.tolist()})


def hit_out(hit: Hit, rank: int) -> HitOut:
    """A hit and its rank, from 1."""
    return HitOut(rank=rank, **{field.name: getattr(hit, field.name) for field in fields(hit)})


def feature_out(item: TileOut) -> FeatureOut:
    """An item or a hit as a GeoJSON feature; its properties stand beside the other fields."""
    values = item.model_dump(mode="json", exclude={"id", "footprint", "properties", "vector"})
    return FeatureOut.model_validate(feature(item.id, item.footprint, values, item.properties))
