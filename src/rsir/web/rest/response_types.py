"""The types of responses of the REST interface; OpenAPI is made from them."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, computed_field

from rsir.archive.exchange.features import feature
from rsir.web.service.additions import AdditionState
from rsir.web.service.scenes import scene_id

if TYPE_CHECKING:
    from rsir.store.records.record import Record
    from rsir.types import Hit

Corners = Annotated[list[float], Field(min_length=4, max_length=4)]
Time = datetime
"""Another name, for classes with a field named `datetime`."""


class _Response(BaseModel):
    """A response that can be made from a dataclass, too."""

    model_config = ConfigDict(from_attributes=True)


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
        description="The hit is nearer than this percentage of random pairs of the archive."
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
    """The archives of the service. unavailable: those that cannot be read now, with the reason."""

    archives: list[ArchiveOut]
    unavailable: dict[str, str] = {}


class SceneOut(_Response):
    """A source of an archive's items. tiled: whether it was cut into tiles."""

    source: str
    tiles: int
    tiled: bool
    bounds: Corners | None = Field(
        description="West, south, east, north in degrees, WGS 84; west > east across the "
        "antimeridian (RFC 7946, section 5.2)."
    )

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
    """The address and the extent of a scene's map tiles (TileJSON 3.0).

    bounds: -180 and 180 for a scene across the antimeridian, as TileJSON requires.
    """

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
    """Whether all archives are loaded; waiting_for: the reasons, by name of an archive."""

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
    """An item or a hit as a GeoJSON feature; its properties are beside the other fields."""
    values = item.model_dump(mode="json", exclude={"id", "footprint", "properties", "vector"})
    return FeatureOut.model_validate(feature(item.id, item.footprint, values, item.properties))
