"""Run the search that a `SearchState` describes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from rsir.errors import UsageError
from rsir.geo.geometry import bbox_of, middle_of
from rsir.store.filters.filter import Filter
from rsir.web.service.service import as_jpeg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rsir.archive.archive import Archive
    from rsir.archive.search.hits import Hits
    from rsir.archive.search.query import QueryLike
    from rsir.web.page.search_state import SearchState
    from rsir.web.page.uploads import Uploads
    from rsir.web.service.service import Service

_PICTURE_SIDE = 320
"""Longest side of the query's picture in pixels, roughly; our choice."""
_MOST_TILES = 1000
"""Tiles over a point that `tile_at` compares; our choice."""


@dataclass(frozen=True)
class SearchResult:
    """The hits of a search, and a picture of its query.

    picture: a "data:" address; None for a tile, whose picture has an address of its own, and for
    a search without a query.
    """

    hits: Hits
    picture: str | None


async def run_search(service: Service, uploads: Uploads, state: SearchState) -> SearchResult:
    """Run the search that `state` describes.

    Errors: as for `Service.search`, `Service.read` and `Uploads.read`; NotFoundError for a scene
    that the archive does not have, UsageError without anything to search with.
    """
    from rsir.archive.search.query import ById, ByWindow, Examples

    pixels: NDArray[np.uint8] | None = None
    single: QueryLike | None = None
    if state.tile is not None:
        single = ById(state.tile)
    elif state.image is not None:
        bands = service.archive(state.archive).bands
        data = await service.run(uploads.read, state.image)
        single = pixels = await service.read(data, bands)
    elif state.scene is not None:
        scene = await service.run(service.scenes[state.archive].of, state.scene)
        single = ByWindow(scene.source, bbox=state.window)
        await service.pictures.run(service.check_source, scene.source)
        archive = service.archive(state.archive)
        pixels = await service.pictures.run(archive.pixels, single)
    query: QueryLike
    if state.like or state.unlike:
        like, unlike = (tuple(map(ById, ids)) for ids in (state.like, state.unlike))
        query = Examples(like, unlike, single)
    elif single is not None:
        query = single
    else:
        raise UsageError("there is nothing to search with yet: choose an image")
    settings = service.settings
    most = min(settings.max_hits, settings.max_diverse) if state.diverse else settings.max_hits
    hits = await service.search(
        state.archive,
        query,
        min(state.count, most),
        filter=state.filter,
        ranking=state.ranking,
        diverse=state.diverse,
    )
    picture = None if pixels is None else await service.pictures.run(_data_address, pixels)
    return SearchResult(hits, picture)


def tile_at(archive: Archive, longitude: float, latitude: float) -> str | None:
    """The id of the tile that covers a point and whose middle is nearest to it.

    None if no tile covers the point. The function blocks.
    """
    longitude = (longitude + 180) % 360 - 180
    over_point = Filter(bbox=(longitude, latitude, longitude, latitude))
    nearest: tuple[float, str] | None = None
    for record in islice(archive.records(over_point), _MOST_TILES):
        x, y = middle_of(bbox_of(record.footprint) or (0, 0, 0, 0))
        # Across the antimeridian the shorter way counts.
        distance = ((longitude - x + 180) % 360 - 180) ** 2 + (latitude - y) ** 2
        if nearest is None or (distance, record.id) < nearest:
            nearest = (distance, record.id)
    return None if nearest is None else nearest[1]


def _data_address(pixels: NDArray[Any]) -> str:
    """A "data:" address of a picture of `pixels`, (C, H, W) uint8."""
    step = max(1, max(pixels.shape[1:]) // _PICTURE_SIDE)
    encoded = base64.b64encode(as_jpeg(pixels[:, ::step, ::step])).decode()
    return f"data:image/jpeg;base64,{encoded}"
