"""The types of requests to the REST interface; OpenAPI is made from them.

A request with unknown fields is refused, so that a misspelt option is an error.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from rsir.archive.search.query import ById, ByWindow, Examples, QueryLike
from rsir.errors import UsageError
from rsir.ranking import metric_named
from rsir.store.filters.filter import Filter
from rsir.types import is_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rsir.archive.archive import Archive
    from rsir.scenes.tiling import Tiling

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
Pixel = Annotated[int, Field(ge=-_MOST_PIXEL, le=_MOST_PIXEL)]

ResultFormat = Literal["json", "geojson"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    """Search for images like a part of an indexed scene. Give one: bbox, point and size, or window.

    bbox: west, south, east, north in degrees, WGS 84. point: longitude, latitude; size: side of
    the square around it in metres. window: column, row, width, height in pixels of the scene.
    """

    scene: SceneId
    bbox: Box | None = None
    point: tuple[Longitude, Latitude] | None = None
    size: Annotated[Finite, Field(gt=0, le=1e7)] | None = None
    window: tuple[Pixel, Pixel, Pixel, Pixel] | None = None

    def to_query(self, _archive: Archive, source: Callable[[str], str]) -> QueryLike:
        """The query for `Archive.search`; errors as for `ByWindow` and `source`."""
        return ByWindow(source(self.scene), self.bbox, self.point, self.size, self.window)


SingleQuery = ItemQuery | VectorQuery | WindowQuery


class FilterIn(_Request):
    """A filter of items; an item must meet every given condition.

    bbox: west, south, east, north in degrees; west > east for a box over the antimeridian.
    geometry: a GeoJSON Polygon or MultiPolygon. start, end: the interval of acquisition times.
    classes: the property "class" must be one of these. where: a condition in SQL on fields and
    properties, e.g. "cloud < 10 AND folder = 'Harbor'".
    """

    bbox: Box | None = None
    geometry: dict[str, JsonValue] | None = None
    start: datetime | None = None
    end: datetime | None = None
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
    image. like, unlike: positive and negative examples. k: number of hits to find. offset, limit:
    the hits in the response (default: all). filter: restricts the items to search. ranking: another
    ranking than the archive's own, e.g. "hamming". diverse: leave out near-duplicates of better
    hits. min_percentile: return only hits that are nearer than this percentage of random pairs of
    the archive.
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


class ImageSearchIn(SearchIn):
    """One search by uploaded images.

    bands: the bands of the files to read, by name or number, such as "red" or "red=3"; null: the
    archive's. stretch: "auto", "none", "percentile:2,98" or "range:0,3000". Use the bands and the
    stretch of the archive's tiles.
    """

    bands: (
        Annotated[list[Annotated[Text, Field(max_length=100)]], Field(min_length=1, max_length=64)]
        | None
    ) = None
    stretch: Annotated[Text, Field(max_length=1000)] = "auto"


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
