"""The REST interface: what can be asked of the archives, address by address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile
from pydantic import ValidationError

from rsir.archive.search.query_vectors import Query as ArchiveQuery
from rsir.archive.search.query_vectors import Single
from rsir.errors import UnknownIdError, UsageError
from rsir.store.filters.interval import interval
from rsir.store.records.summary import SourceSummary
from rsir.web.rest.models import (
    AdditionIn,
    AdditionOut,
    AdditionsOut,
    ArchiveOut,
    ArchivesOut,
    DeletedOut,
    FeaturesOut,
    Format,
    GetIn,
    HitsOut,
    IdsIn,
    ItemOut,
    ItemsOut,
    SceneOut,
    ScenesOut,
    SearchIn,
    TileJson,
    hit_out,
    item_out,
    report_out,
)
from rsir.web.rest.parameters import (
    As,
    ItemId,
    Limit,
    Name,
    Offset,
    SceneName,
    ServiceDep,
    check_image,
    first_of,
    json_of,
    json_only,
    multipart_only,
    owner,
    valid_filter,
)
from rsir.web.rest.responses import ALSO_GEOJSON, ALWAYS, geojson, json_answer, problems
from rsir.web.service import scenes
from rsir.web.service.additions import Addition
from rsir.web.service.scenes import scene_id
from rsir.web.service.service import THUMBNAIL_SIDES, Service, page_of

_DAY = "private, max-age=86400, immutable"
"""An id belongs to a content, so its picture never changes."""
_MINUTES = "private, max-age=300"
_MOST_OFFSET = 10_000
"""Of items; to go further costs more with every item, which `after` does not. Our choice."""

api = APIRouter(prefix="/api", tags=["archives"], responses=problems(*ALWAYS))


@api.get("/archives")
async def archives(service: ServiceDep) -> ArchivesOut:
    """The archives that are served."""
    found = [await service.run(_about, service, name) for name in sorted(service.archives)]
    return ArchivesOut(archives=found)


@api.get("/archives/{name}")
async def archive(service: ServiceDep, name: Name) -> ArchiveOut:
    """What one archive is: how many items, which model, which metric, which version."""
    service.archive(name)
    return await service.run(_about, service, name)


@api.post(
    "/archives/{name}/search",
    response_model=HitsOut | FeaturesOut,
    dependencies=[Depends(json_only)],
    responses=ALSO_GEOJSON | problems(415),
)
async def search(service: ServiceDep, name: Name, body: SearchIn, format: As = "json") -> Response:
    """Search by an item, a vector, a window of a scene, or by examples and counterexamples."""
    archive = service.archive(name)
    query = await service.run(body.asked, archive, _sources(service, name))
    return await _search(service, name, query, body, format)


@api.post(
    "/archives/{name}/search/images",
    response_model=HitsOut | FeaturesOut,
    dependencies=[Depends(multipart_only)],
    responses=ALSO_GEOJSON | problems(415),
)
async def search_images(
    service: ServiceDep,
    name: Name,
    image: Annotated[UploadFile | None, File(description="What to look for.")] = None,
    like: Annotated[list[UploadFile], File(description="Examples of what is wanted.")] = [],  # noqa: B006
    unlike: Annotated[list[UploadFile], File(description="Examples of what is not.")] = [],  # noqa: B006
    options: Annotated[str, Form(description="JSON, as `SearchIn`.")] = "{}",
    format: As = "json",
) -> Response:
    """Search by images: PNG, JPEG, WebP or TIFF of the bands red, green, blue, or grey.

    What is in a file decides how it is read, whatever its name says.
    """
    archive = service.archive(name)
    try:
        how = SearchIn.model_validate_json(options)
    except ValidationError as error:
        raise UsageError(f"the field 'options': {first_of(error)}") from error
    for upload in (*([] if image is None else [image]), *like, *unlike):
        check_image(upload)
    most = service.settings.max_examples
    if max(len(like), len(unlike)) > most:
        raise UsageError(f"at most {most} examples of a kind")
    asked = None if image is None else await service.read(image.file)
    liked: list[Single] = [await service.read(upload.file) for upload in like]
    not_liked: list[Single] = [await service.read(upload.file) for upload in unlike]
    query = await service.run(how.asked, archive, _sources(service, name), asked, liked, not_liked)
    return await _search(service, name, query, how, format)


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
        str | None, Query(description="`next` of the answer before.", max_length=4096)
    ] = None,
    offset: Annotated[int, Query(ge=0, le=_MOST_OFFSET)] = 0,
    limit: Limit = 100,
    format: As = "json",
) -> Response:
    """The items that meet all that is asked, ordered by id.

    To go through many, give `next` of each answer as `after` of the next request.
    """
    archive = service.archive(name)
    limit = min(limit, service.settings.max_page)
    start, end = (None, None) if datetime is None else interval(datetime, "datetime")
    chosen = valid_filter(
        bbox=None if bbox is None else bbox.split(","),
        start=start, end=end, classes=classes, where=where, geometry=json_of(geometry),
    )  # fmt: skip

    def read() -> tuple[int, list[ItemOut]]:
        filter = chosen.filter()
        records = page_of(archive, filter, offset, limit, after)
        return archive.count(filter), [item_out(r, scene_id(r.source)) for r in records]

    total, found = await service.run(read)
    if format == "geojson":
        return geojson(found, total, offset)
    more = found[-1].id if len(found) == limit else None
    return json_answer(ItemsOut(total=total, offset=offset, items=found, next=more))


@api.post("/archives/{name}/items/get", dependencies=[Depends(json_only)], responses=problems(415))
async def items_by_id(service: ServiceDep, name: Name, body: GetIn) -> ItemsOut:
    """The items of these ids, in their order, with their vectors if wanted."""
    archive = service.archive(name)

    def read() -> list[ItemOut]:
        records = archive.get(body.ids)
        vectors = list(archive.vectors(body.ids)) if body.vectors else [None] * len(records)
        return [
            item_out(record, scene_id(record.source), vector)
            for record, vector in zip(records, vectors, strict=True)
        ]

    found = await service.run(read)
    return ItemsOut(total=len(found), offset=0, items=found)


@api.post(
    "/archives/{name}/items/delete",
    dependencies=[Depends(owner), Depends(json_only)],
    responses=problems(401, 415),
)
async def delete_items(service: ServiceDep, name: Name, body: IdsIn) -> DeletedOut:
    """Forget items; their files are left alone. Needs the API key."""
    return DeletedOut(deleted=await service.delete(name, body.ids))


@api.get(
    "/archives/{name}/items/{id:path}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **problems(410)},
)
async def thumbnail(
    service: ServiceDep,
    name: Name,
    id: ItemId,
    size: Annotated[int, Query(ge=THUMBNAIL_SIDES[0], le=THUMBNAIL_SIDES[1])] = 256,
) -> Response:
    """The item as a JPEG whose longer side has at most `size` pixels."""
    picture = await service.thumbnail(name, id, size)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": _DAY})


@api.get("/archives/{name}/items/{id:path}")
async def item(service: ServiceDep, name: Name, id: ItemId) -> ItemOut:
    """One item."""
    archive = service.archive(name)
    (record,) = await service.run(archive.get, [id])
    return item_out(record, scene_id(record.source))


@api.delete(
    "/archives/{name}/items/{id:path}",
    dependencies=[Depends(owner)],
    status_code=204,
    responses=problems(401),
)
async def delete_item(service: ServiceDep, name: Name, id: ItemId) -> None:
    """Forget one item; its file is left alone. Needs the API key."""
    if not await service.delete(name, [id]):
        raise UnknownIdError(f"the archive has no item {id!r}")


@api.get("/archives/{name}/scenes")
async def sources(
    service: ServiceDep, name: Name, offset: Offset = 0, limit: Limit = 100
) -> ScenesOut:
    """The files that the items were cut from."""
    service.archive(name)
    known = await service.run(service.scenes[name].all)
    limit = min(limit, service.settings.max_page)
    some = list(known.items())[offset : offset + limit]
    found = [_scene_out(id, s) for id, s in some]
    return ScenesOut(total=len(known), offset=offset, scenes=found)


@api.get("/archives/{name}/scenes/{scene}", responses=problems(410, 501))
async def scene(service: ServiceDep, request: Request, name: Name, scene: SceneName) -> TileJson:
    """Where a scene's map tiles are, and which there are (TileJSON)."""
    look = await service.look(name, scene)
    bounds, low, high = await service.pictures.run(scenes.place, look)
    here = request.url_for("scene", name=name, scene=scene).path
    return TileJson(
        name=PurePosixPath(look.source).name,
        tiles=[f"{here}/tiles/{{z}}/{{x}}/{{y}}.png"],
        bounds=list(bounds), minzoom=low, maxzoom=high,
    )  # fmt: skip


@api.get(
    "/archives/{name}/scenes/{scene}/tiles/{z}/{x}/{y}.{format}",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/webp": {}}}, **problems(410, 501)},
)
async def scene_tile(
    service: ServiceDep,
    name: Name,
    scene: SceneName,
    z: Annotated[int, Path(ge=0, le=24)],
    x: Annotated[int, Path(ge=0, lt=2**24)],
    y: Annotated[int, Path(ge=0, lt=2**24)],
    format: scenes.Format,
) -> Response:
    """A map tile of a scene (XYZ, Web Mercator, 256 × 256), with the stretch of its items."""
    look = await service.look(name, scene)
    picture = await service.pictures.run(scenes.tile, look, z, x, y, format)
    headers = {"Cache-Control": _MINUTES}
    return Response(picture, media_type=f"image/{format}", headers=headers)


@api.post(
    "/archives/{name}/additions",
    dependencies=[Depends(owner), Depends(json_only)],
    status_code=202,
    responses=problems(401, 409, 415),
)
async def add(
    service: ServiceDep, request: Request, response: Response, name: Name, body: AdditionIn
) -> AdditionOut:
    """Begin to add files and folders of the service's machine. Needs the API key."""
    addition = service.additions.start(
        name,
        service.archive(name),
        body.paths,
        None if body.tiling is None else body.tiling.tiling(),
    )
    there = request.url_for("addition", name=name, id=addition.id).path
    response.headers["Location"] = there
    return _addition_out(addition)


@api.get("/archives/{name}/additions", dependencies=[Depends(owner)], responses=problems(401))
async def additions(service: ServiceDep, name: Name) -> AdditionsOut:
    """The last additions, newest first. Needs the API key."""
    service.archive(name)
    return AdditionsOut(additions=[_addition_out(a) for a in service.additions.of(name)])


@api.get("/archives/{name}/additions/{id}", dependencies=[Depends(owner)], responses=problems(401))
async def addition(service: ServiceDep, name: Name, id: ItemId) -> AdditionOut:
    """How far an addition is. Needs the API key."""
    service.archive(name)
    return _addition_out(service.additions.get(name, id))


async def _search(
    service: Service, name: str, query: ArchiveQuery, how: SearchIn, format: Format
) -> Response:
    limit = min(how.limit or how.k, service.settings.max_page)
    hits = await service.search(
        name, query, how.k, filter=await service.run(how.filter.filter), ranking=how.ranking,
        diverse=how.diverse, min_percentile=how.min_percentile, offset=how.offset, limit=limit,
    )  # fmt: skip
    some = hits[how.offset : how.offset + limit]
    found = [hit_out(h, n, scene_id(h.source)) for n, h in enumerate(some, how.offset + 1)]
    if format == "geojson":
        return geojson(found, len(hits), how.offset)
    answer = HitsOut(
        total=len(hits), offset=how.offset, searched=hits.searched, seconds=hits.seconds, hits=found
    )
    return json_answer(answer)


def _about(service: Service, name: str) -> ArchiveOut:
    about = {"name": name, "ready": name not in service.unready}
    return ArchiveOut.model_validate(service.archive(name).info() | about)


def _sources(service: Service, name: str) -> Callable[[str], str]:
    return lambda scene: service.scenes[name].of(scene).source


def _scene_out(scene: str, summary: SourceSummary) -> SceneOut:
    bounds = None if summary.bounds is None else list(summary.bounds)
    return SceneOut(
        scene=scene, source=summary.source, tiles=summary.tiles, tiled=summary.tiled, bounds=bounds
    )


def _addition_out(addition: Addition) -> AdditionOut:
    return AdditionOut(
        id=addition.id, state=addition.state, paths=addition.paths, done=addition.done,
        total=addition.total, problem=addition.problem,
        report=None if addition.report is None else report_out(addition.report),
    )  # fmt: skip
