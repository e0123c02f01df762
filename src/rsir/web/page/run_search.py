"""From what is asked to what is found."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsir.errors import UsageError
from rsir.store.filters.filter import Filter
from rsir.web.service.service import as_jpeg

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rsir.archive.archive import Archive
    from rsir.archive.search.hits import Hits
    from rsir.archive.search.query_vectors import Query, Single
    from rsir.web.page.search_state import SearchState
    from rsir.web.page.uploads import Uploads
    from rsir.web.service.service import Service

_SIDE = 320  # longest side of the query's picture in pixels
_OVERLAPPING = 1000
"""Tiles over one point that are looked at for the one it is nearest the middle of; our choice."""


@dataclass(frozen=True)
class Found:
    """hits, and the query to look at: a picture as a "data:" address, None if there is none.

    A tile has an address of its own.
    """

    hits: Hits
    picture: str | None


async def find(service: Service, uploads: Uploads, asked: SearchState) -> Found:
    """Search for `asked`.

    Errors: those of `Service.search`, `Service.read`, `Uploads.read`; NotFoundError for a scene
    that the archive has not.
    """
    from rsir.archive.search.query_vectors import ById, ByWindow, Examples, window_pixels

    pixels: NDArray[np.uint8] | None = None
    query: Single | None = None
    if asked.tile is not None:
        query = ById(asked.tile)
    elif asked.image is not None:
        query = pixels = await service.read(await service.run(uploads.read, asked.image))
    elif asked.scene is not None:
        scene = await service.run(service.scenes[asked.archive].of, asked.scene)
        query = ByWindow(scene.source, bbox=asked.window)
        await service.pictures.run(service.check_source, scene.source)
        archive = service.archive(asked.archive)
        pixels = await service.pictures.run(window_pixels, archive, query)
    whole: Query
    if asked.like or asked.unlike:
        like, unlike = (tuple(map(ById, ids)) for ids in (asked.like, asked.unlike))
        whole = Examples(like, unlike, query)
    elif query is not None:
        whole = query
    else:
        raise UsageError("there is nothing to search with yet: choose an image")
    settings = service.settings
    most = min(settings.max_hits, settings.max_diverse) if asked.varied else settings.max_hits
    hits = await service.search(
        asked.archive,
        whole,
        min(asked.count, most),
        filter=asked.filter,
        ranking=asked.ranking,
        diverse=asked.varied,
    )
    picture = None if pixels is None else await service.pictures.run(_data, pixels)
    return Found(hits, picture)


def tile_at(archive: Archive, longitude: float, latitude: float) -> str | None:
    """The id of the tile whose middle is nearest to a point that it covers; blocks."""
    from itertools import islice

    from rsir.geo.geometry import bounds_of

    longitude = (longitude + 180) % 360 - 180
    here = Filter(bbox=(longitude, latitude, longitude, latitude))
    best: tuple[float, str] | None = None
    for record in islice(archive.records(here), _OVERLAPPING):
        west, south, east, north = bounds_of(record.footprint) or (0, 0, 0, 0)
        away = (longitude - (west + east) / 2) ** 2 + (latitude - (south + north) / 2) ** 2
        if best is None or (away, record.id) < best:
            best = (away, record.id)
    return None if best is None else best[1]


def _data(pixels: NDArray[Any]) -> str:
    step = max(1, max(pixels.shape[1:]) // _SIDE)
    encoded = base64.b64encode(as_jpeg(pixels[:, ::step, ::step])).decode()
    return f"data:image/jpeg;base64,{encoded}"
