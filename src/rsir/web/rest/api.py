"""The addresses of the REST interface."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile
from pydantic import ValidationError

from rsir.archive.search.query import QueryLike
from rsir.errors import ArchiveError, UnknownIdError, UsageError
from rsir.store.filters.interval import interval
from rsir.web.rest.parameters import (
    FormatParameter,
    ItemId,
    Limit,
    Name,
    Offset,
    SceneName,
    ServiceDep,
    check_image_type,
    first_message,
    json_only,
    multipart_only,
    owner_only,
    parsed_geometry,
    valid_filter,
)
from rsir.web.rest.request_types import (
    AdditionIn,
    GetIn,
    IdsIn,
    ImageSearchIn,
    ResultFormat,
    SearchIn,
)
from rsir.web.rest.response_types import (
    AdditionOut,
    AdditionsOut,
    ArchiveOut,
    ArchivesOut,
    DeletedOut,
    FeaturesOut,
    HitsOut,
    ItemOut,
    ItemsOut,
    SceneOut,
    ScenesOut,
    TileJson,
    hit_out,
    item_out,
)
from rsir.web.rest.responses import (
    ALSO_GEOJSON,
    COMMON,
    geojson_response,
    json_response,
    problem_responses,
)
from rsir.web.service import scenes
from rsir.web.service.service import THUMBNAIL_SIDES, Service, page_of

_CACHE_DAY = "private, max-age=86400, immutable"
"""For thumbnails: an id stands for a content, so its picture never changes."""
_CACHE_MINUTES = "private, max-age=300"
_MOST_OFFSET = 10_000
"""Largest offset of items; our choice: each skipped item takes time, unlike with `after`."""

api = APIRouter(prefix="/api", tags=["archives"], responses=problem_responses(*COMMON))


@api.get("/archives")
async def archives(service: ServiceDep) -> ArchivesOut:
    """The archives of the service."""
    found, unavailable = [], {}
    for name in sorted(service.archives):
        try:
            found.append(await service.run(_archive_out, service, name))
        except ArchiveError as error:
            unavailable[name] = str(error)
    return ArchivesOut(archives=found, unavailable=unavailable)


@api.get("/archives/{name}")
async def archive(service: ServiceDep, name: Name) -> ArchiveOut:
    """One archive: its number of items, model, metric and version."""
    service.archive(name)
    return await service.run(_archive_out, service, name)


@api.post(
    "/archives/{name}/search",
    response_model=HitsOut | FeaturesOut,
    dependencies=[Depends(json_only)],
    responses=ALSO_GEOJSON | problem_responses(415),
)
async def search(
    service: ServiceDep, name: Name, body: SearchIn, format: FormatParameter = "json"
) -> Response:
    """Search by an item, a vector, a window of a scene, or positive and negative examples."""
    archive = service.archive(name)
    query = await service.run(body.to_query, archive, _source_of(service, name))
    return await _search(service, name, query, body, format)


@api.post(
    "/archives/{name}/search/images",
    response_model=HitsOut | FeaturesOut,
    dependencies=[Depends(multipart_only)],
    responses=ALSO_GEOJSON | problem_responses(415),
)
async def search_images(
    service: ServiceDep,
    name: Name,
    image: Annotated[UploadFile | None, File(description="The query image.")] = None,
    like: Annotated[list[UploadFile], File(description="Positive examples.")] = [],  # noqa: B006
    unlike: Annotated[list[UploadFile], File(description="Negative examples.")] = [],  # noqa: B006
    options: Annotated[
        str, Form(description="A JSON object with the fields of `ImageSearchIn`.")
    ] = "{}",
    format: FormatParameter = "json",
) -> Response:
    """Search by images: pictures, and rasters of any bands and depth (GeoTIFF, JPEG 2000).

    The content of a file determines its format; its name does not matter. `bands` and `stretch` of
    the options hold for all files of the request.
    """
    archive = service.archive(name)
    try:
        body = ImageSearchIn.model_validate_json(options)
    except ValidationError as error:
        raise UsageError(f"the field 'options': {first_message(error)}") from error
    for upload in (*([] if image is None else [image]), *like, *unlike):
        check_image_type(upload)
    most = service.settings.max_examples
    if max(len(like), len(unlike)) > most:
        raise UsageError(f"at most {most} positive and {most} negative examples")
    uploads = [upload.file for upload in (*([] if image is None else [image]), *like, *unlike)]
    read: list[QueryLike] = [
        await service.read(file, archive.bands, choice=body.bands, stretch=body.stretch)
        for file in uploads
    ]
    pixels = None if image is None else read.pop(0)
    liked, unliked = read[: len(like)], read[len(like) :]
    source_of = _source_of(service, name)
    query = await service.run(body.to_query, archive, source_of, pixels, liked, unliked)
    return await _search(service, name, query, body, format)


@api.get("/archives/{name}/items", response_model=ItemsOut | FeaturesOut, responses=ALSO_GEOJSON)
async def items(
    service: ServiceDep,
    name: Name,
    bbox: Annotated[
        str | None, Query(description="West,south,east,north in degrees.", max_length=200)
    ] = None,
    datetime: Annotated[
        str | None,
        Query(
            description="A year, month, day or time in ISO 8601, or START/END with '..' for an "
            "open end.",
            max_length=200,
        ),
    ] = None,
    classes: Annotated[list[str] | None, Query(description="Names of classes.")] = None,
    where: Annotated[str | None, Query(description="A condition in SQL.")] = None,
    geometry: Annotated[str | None, Query(description="GeoJSON of a polygon.")] = None,
    after: Annotated[
        str | None, Query(description="`next` of the previous page.", max_length=4096)
    ] = None,
    offset: Annotated[int, Query(ge=0, le=_MOST_OFFSET)] = 0,
    limit: Limit = 100,
    format: FormatParameter = "json",
) -> Response:
    """The items that meet all conditions, ordered by id.

    To read many items, give `next` of each page as `after` of the next request.
    """
    archive = service.archive(name)
    limit = min(limit, service.settings.max_page)
    start, end = (None, None) if datetime is None else interval(datetime, "datetime")
    conditions = valid_filter(
        bbox=None if bbox is None else bbox.split(","),
        start=start, end=end, classes=classes, where=where, geometry=parsed_geometry(geometry),
    )  # fmt: skip

    def read() -> tuple[int, list[ItemOut]]:
        filter = conditions.to_filter()
        records = page_of(archive, filter, offset, limit, after)
        return archive.count(filter), [item_out(record) for record in records]

    total, page = await service.run(read)
    if format == "geojson":
        return geojson_response(page, total, offset)
    next_id = page[-1].id if len(page) == limit else None
    return json_response(ItemsOut(total=total, offset=offset, items=page, next=next_id))


@api.post(
    "/archives/{name}/items/get",
    dependencies=[Depends(json_only)],
    responses=problem_responses(415),
)
async def items_by_id(service: ServiceDep, name: Name, body: GetIn) -> ItemsOut:
    """The items of these ids, in the same order; on request with their vectors."""
    archive = service.archive(name)

    def read() -> list[ItemOut]:
        records = archive.get(body.ids)
        vectors = list(archive.vectors(body.ids)) if body.vectors else [None] * len(records)
        return [item_out(*pair) for pair in zip(records, vectors, strict=True)]

    found_items = await service.run(read)
    return ItemsOut(total=len(found_items), offset=0, items=found_items)


@api.post(
    "/archives/{name}/items/delete",
    dependencies=[Depends(owner_only), Depends(json_only)],
    responses=problem_responses(401, 415),
)
async def delete_items(service: ServiceDep, name: Name, body: IdsIn) -> DeletedOut:
    """Delete items, but not their files. Needs the API key."""
    return DeletedOut(deleted=await service.delete(name, body.ids))


@api.get(
    "/archives/{name}/items/{id:path}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **problem_responses(410)},
)
async def thumbnail(
    service: ServiceDep,
    name: Name,
    id: ItemId,
    size: Annotated[int, Query(ge=THUMBNAIL_SIDES[0], le=THUMBNAIL_SIDES[1])] = 256,
) -> Response:
    """A JPEG of an item whose longer side has at most `size` pixels."""
    picture = await service.thumbnail(name, id, size)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": _CACHE_DAY})


@api.get("/archives/{name}/items/{id:path}")
async def item(service: ServiceDep, name: Name, id: ItemId) -> ItemOut:
    """One item."""
    archive = service.archive(name)
    (record,) = await service.run(archive.get, [id])
    return item_out(record)


@api.delete(
    "/archives/{name}/items/{id:path}",
    dependencies=[Depends(owner_only)],
    status_code=204,
    responses=problem_responses(401),
)
async def delete_item(service: ServiceDep, name: Name, id: ItemId) -> None:
    """Delete one item, but not its file. Needs the API key."""
    if not await service.delete(name, [id]):
        raise UnknownIdError(f"the archive has no item {id!r}")


@api.get("/archives/{name}/scenes")
async def sources(
    service: ServiceDep, name: Name, offset: Offset = 0, limit: Limit = 100
) -> ScenesOut:
    """The files that the items come from."""
    service.archive(name)
    known = await service.run(service.scenes[name].all)
    limit = min(limit, service.settings.max_page)
    page = list(known.values())[offset : offset + limit]
    scenes_out = [SceneOut.model_validate(source) for source in page]
    return ScenesOut(total=len(known), offset=offset, scenes=scenes_out)


@api.get("/archives/{name}/scenes/{scene}", responses=problem_responses(410, 501))
async def scene(service: ServiceDep, request: Request, name: Name, scene: SceneName) -> TileJson:
    """The address and the extent of a scene's map tiles (TileJSON)."""
    style = await service.scene_style(name, scene)
    bounds, low, high = await service.pictures.run(scenes.extent_and_zooms, style)
    address = request.url_for("scene", name=name, scene=scene)
    return TileJson(
        name=PurePosixPath(style.source).name,
        tiles=[f"{address}/tiles/{{z}}/{{x}}/{{y}}.png"],
        bounds=list(bounds), minzoom=low, maxzoom=high,
    )  # fmt: skip


@api.get(
    "/archives/{name}/scenes/{scene}/tiles/{z}/{x}/{y}.{format}",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}, "image/webp": {}}},
        **problem_responses(410, 501),
    },
)
async def scene_tile(
    service: ServiceDep,
    name: Name,
    scene: SceneName,
    z: Annotated[int, Path(ge=0, le=24)],
    x: Annotated[int, Path(ge=0, lt=2**24)],
    y: Annotated[int, Path(ge=0, lt=2**24)],
    format: scenes.TileFormat,
) -> Response:
    """A map tile of a scene (XYZ, Web Mercator, 256 × 256), with the stretch of its items."""
    style = await service.scene_style(name, scene)
    picture = await service.pictures.run(scenes.tile, style, z, x, y, format)
    headers = {"Cache-Control": _CACHE_MINUTES}
    return Response(picture, media_type=f"image/{format}", headers=headers)


@api.post(
    "/archives/{name}/additions",
    dependencies=[Depends(owner_only), Depends(json_only)],
    status_code=202,
    responses=problem_responses(401, 409, 415),
)
async def add(
    service: ServiceDep, request: Request, response: Response, name: Name, body: AdditionIn
) -> AdditionOut:
    """Start to add files and folders of the service's machine. Needs the API key."""
    addition = service.additions.start(
        name,
        service.archive(name),
        body.paths,
        None if body.tiling is None else body.tiling.to_tiling(),
    )
    response.headers["Location"] = request.url_for("addition", name=name, id=addition.id).path
    return AdditionOut.model_validate(addition)


@api.get(
    "/archives/{name}/additions",
    dependencies=[Depends(owner_only)],
    responses=problem_responses(401),
)
async def additions(service: ServiceDep, name: Name) -> AdditionsOut:
    """The last additions, newest first. Needs the API key."""
    service.archive(name)
    known = service.additions.of(name)
    return AdditionsOut(additions=[AdditionOut.model_validate(addition) for addition in known])


@api.get(
    "/archives/{name}/additions/{id}",
    dependencies=[Depends(owner_only)],
    responses=problem_responses(401),
)
async def addition(service: ServiceDep, name: Name, id: ItemId) -> AdditionOut:
    """The progress of an addition. Needs the API key."""
    service.archive(name)
    return AdditionOut.model_validate(service.additions.get(name, id))


async def _search(
    service: Service, name: str, query: QueryLike, body: SearchIn, format: ResultFormat
) -> Response:
    offset, limit = body.offset, min(body.limit or body.k, service.settings.max_page)
    hits = await service.search(
        name, query, body.k, filter=await service.run(body.filter.to_filter), ranking=body.ranking,
        diverse=body.diverse, min_percentile=body.min_percentile, offset=offset, limit=limit,
    )  # fmt: skip
    page = hits[offset : offset + limit]
    shown = [hit_out(hit, rank) for rank, hit in enumerate(page, offset + 1)]
    if format == "geojson":
        return geojson_response(shown, len(hits), offset)
    return json_response(
        HitsOut(
            total=len(hits), offset=offset, searched=hits.searched, seconds=hits.seconds,
            hits=shown,
        )
    )  # fmt: skip


def _archive_out(service: Service, name: str) -> ArchiveOut:
    info = service.archive(name).info()
    return ArchiveOut.model_validate({**info, "name": name, "ready": service.is_ready(name)})


def _source_of(service: Service, name: str) -> Callable[[str], str]:
    """The function from a scene's id to its source."""
    return lambda scene: service.scenes[name].of(scene).source
