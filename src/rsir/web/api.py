"""The REST interface: what can be asked of the archives, address by address."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, TypeAdapter, ValidationError

import rsir
from rsir.archive.query import Query as ArchiveQuery
from rsir.archive.query import Single
from rsir.archive.summary import SourceSummary
from rsir.errors import UnknownIdError, UsageError
from rsir.web import metrics, scenes
from rsir.web.additions import Addition
from rsir.web.models import (
    AdditionIn,
    AdditionOut,
    AdditionsOut,
    ArchiveOut,
    ArchivesOut,
    DeletedOut,
    FeaturesOut,
    FilterIn,
    Format,
    GetIn,
    HealthOut,
    HitsOut,
    IdsIn,
    ItemOut,
    ItemsOut,
    Problem,
    ReadyOut,
    SceneOut,
    ScenesOut,
    SearchIn,
    TileJson,
    TileOut,
    feature_out,
    hit_out,
    item_out,
    report_out,
)
from rsir.web.problems import (
    KINDS,
    PROBLEM_JSON,
    ForbiddenError,
    KeyMissingError,
    NotFoundError,
    WrongTypeError,
)
from rsir.web.scenes import scene_id
from rsir.web.service import THUMBNAIL_SIDES, Service, page_of

GEOJSON = "application/geo+json"
_DAY = "private, max-age=86400, immutable"
"""An id belongs to a content, so its picture never changes."""
_MINUTES = "private, max-age=300"
_MOST_OFFSET = 10_000
"""Of items; to go further costs more with every item, which `after` does not. Our choice."""

Name = Annotated[str, Path(description="An archive's name.", max_length=200)]
ItemId = Annotated[str, Path(description="An item's id.", max_length=4096)]
SceneName = Annotated[str, Path(description="A scene's id.", pattern="^[0-9a-f]{16}$")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Items left out before the first.")]
Limit = Annotated[int, Query(ge=1, le=100_000, description="Items answered at most.")]
As = Annotated[Format, Query(description="json, or geojson for GIS programs.")]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Asked = Annotated[Service, Depends(_service)]

_bearer = HTTPBearer(
    auto_error=False, scheme_name="key", description="The API key of the service's owner."
)


def _owner(
    service: Asked, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Lets nobody pass who does not have the API key."""
    key = service.settings.api_key
    if key is None:
        raise ForbiddenError("this service only reads: it was started without an API key")
    # As bytes: compare_digest takes no text beyond ASCII. Its time does not tell where they differ.
    if given is None or not secrets.compare_digest(given.credentials.encode(), key.encode()):
        raise KeyMissingError("give the API key as 'Authorization: Bearer KEY'")


def _json_only(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WrongTypeError(f"send application/json, not {kind or 'a body without a type'}")


def _multipart_only(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise WrongTypeError(f"send multipart/form-data, not {kind or 'a body without a type'}")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Of OpenAPI: which problems an address may answer."""
    titles: dict[int, str] = {}
    for kind in KINDS:
        titles.setdefault(kind.status, kind.title)
    return {
        status: {
            "description": titles.get(status, "Error"),
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "model": Problem,
        }
        for status in statuses
    }


_ALWAYS = (400, 403, 404, 408, 413, 422, 500, 503)
_GEO: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            GEOJSON: {"schema": {"$ref": "#/components/schemas/FeaturesOut"}},
            "application/json": {},
        }
    }
}

probes = APIRouter(tags=["service"])
api = APIRouter(prefix="/api", tags=["archives"], responses=_problems(*_ALWAYS))


@probes.get("/health")
async def health() -> HealthOut:
    """Whether the service runs."""
    return HealthOut(version=rsir.__version__)


@probes.get("/ready", responses={503: {"model": ReadyOut, "description": "Not yet."}})
async def ready(service: Asked, response: Response) -> ReadyOut:
    """Whether every archive's model and vectors are loaded: 200, or 503 until then."""
    waiting = dict(service.unready)
    response.status_code = 503 if waiting else 200
    return ReadyOut(ready=not waiting, waiting_for=waiting)


@probes.get("/metrics", response_class=PlainTextResponse)
async def prometheus(service: Asked) -> Response:
    """Counters and durations for Prometheus."""
    return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


@probes.get("/problems")
async def problems() -> list[dict[str, Any]]:
    """What can go wrong: the types of problems, with their statuses."""
    return [{"type": f"/problems/{k.name}", "status": k.status, "title": k.title} for k in KINDS]


@probes.get("/problems/{name}", responses=_problems(404))
async def problem(name: str) -> dict[str, Any]:
    """One type of problem."""
    for kind in KINDS:
        if kind.name == name:
            return {"type": f"/problems/{name}", "status": kind.status, "title": kind.title}
    raise NotFoundError(f"there is no problem {name!r}")


@api.get("/archives")
async def archives(service: Asked) -> ArchivesOut:
    """The archives that are served."""
    found = [await service.run(_about, service, name) for name in sorted(service.archives)]
    return ArchivesOut(archives=found)


@api.get("/archives/{name}")
async def archive(service: Asked, name: Name) -> ArchiveOut:
    """What one archive is: how many items, which model, which metric, which version."""
    service.archive(name)
    return await service.run(_about, service, name)


@api.post(
    "/archives/{name}/search",
    response_model=HitsOut | FeaturesOut,
    dependencies=[Depends(_json_only)],
    responses=_GEO | _problems(415),
)
async def search(service: Asked, name: Name, body: SearchIn, format: As = "json") -> Response:
    """Search by an item, a vector, a window of a scene, or by examples and counterexamples."""
    archive = service.archive(name)
    query = await service.run(body.asked, archive, _sources(service, name))
    return await _search(service, name, query, body, format)


@api.post(
    "/archives/{name}/search/images",
    response_model=HitsOut | FeaturesOut,
    dependencies=[Depends(_multipart_only)],
    responses=_GEO | _problems(415),
)
async def search_images(
    service: Asked,
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
        raise UsageError(f"the field 'options': {_first(error)}") from error
    for upload in (*([] if image is None else [image]), *like, *unlike):
        _check_type(upload)
    most = service.settings.max_examples
    if max(len(like), len(unlike)) > most:
        raise UsageError(f"at most {most} examples of a kind")
    asked = None if image is None else await service.read(image.file)
    liked: list[Single] = [await service.read(upload.file) for upload in like]
    not_liked: list[Single] = [await service.read(upload.file) for upload in unlike]
    query = await service.run(how.asked, archive, _sources(service, name), asked, liked, not_liked)
    return await _search(service, name, query, how, format)


@api.get("/archives/{name}/items", response_model=ItemsOut | FeaturesOut, responses=_GEO)
async def items(
    service: Asked,
    name: Name,
    bbox: Annotated[
        str | None, Query(description="West,south,east,north in degrees.", max_length=200)
    ] = None,
    datetime: Annotated[
        str | None,
        Query(description="A time, or START/END with '..' for an open end.", max_length=200),
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
    start, end = _interval(datetime)
    chosen = _valid(
        bbox=None if bbox is None else bbox.split(","),
        start=start, end=end, classes=classes, where=where, geometry=_json_of(geometry),
    )  # fmt: skip

    def read() -> tuple[int, list[ItemOut]]:
        filter = chosen.filter()
        records = page_of(archive, filter, offset, limit, after)
        return archive.count(filter), [item_out(r, scene_id(r.source)) for r in records]

    total, found = await service.run(read)
    if format == "geojson":
        return _geojson(found, total, offset)
    more = found[-1].id if len(found) == limit else None
    return _json(ItemsOut(total=total, offset=offset, items=found, next=more))


@api.post(
    "/archives/{name}/items/get", dependencies=[Depends(_json_only)], responses=_problems(415)
)
async def items_by_id(service: Asked, name: Name, body: GetIn) -> ItemsOut:
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
    dependencies=[Depends(_owner), Depends(_json_only)],
    responses=_problems(401, 415),
)
async def delete_items(service: Asked, name: Name, body: IdsIn) -> DeletedOut:
    """Forget items; their files are left alone. Needs the API key."""
    return DeletedOut(deleted=await service.delete(name, body.ids))


@api.get(
    "/archives/{name}/items/{id:path}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, **_problems(410)},
)
async def thumbnail(
    service: Asked,
    name: Name,
    id: ItemId,
    size: Annotated[int, Query(ge=THUMBNAIL_SIDES[0], le=THUMBNAIL_SIDES[1])] = 256,
) -> Response:
    """The item as a JPEG whose longer side has at most `size` pixels."""
    picture = await service.thumbnail(name, id, size)
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": _DAY})


@api.get("/archives/{name}/items/{id:path}")
async def item(service: Asked, name: Name, id: ItemId) -> ItemOut:
    """One item."""
    archive = service.archive(name)
    (record,) = await service.run(archive.get, [id])
    return item_out(record, scene_id(record.source))


@api.delete(
    "/archives/{name}/items/{id:path}",
    dependencies=[Depends(_owner)],
    status_code=204,
    responses=_problems(401),
)
async def delete_item(service: Asked, name: Name, id: ItemId) -> None:
    """Forget one item; its file is left alone. Needs the API key."""
    if not await service.delete(name, [id]):
        raise UnknownIdError(f"the archive has no item {id!r}")


@api.get("/archives/{name}/scenes")
async def sources(service: Asked, name: Name, offset: Offset = 0, limit: Limit = 100) -> ScenesOut:
    """The files that the items were cut from."""
    service.archive(name)
    known = await service.run(service.scenes[name].all)
    limit = min(limit, service.settings.max_page)
    some = list(known.items())[offset : offset + limit]
    found = [_scene_out(id, s) for id, s in some]
    return ScenesOut(total=len(known), offset=offset, scenes=found)


@api.get("/archives/{name}/scenes/{scene}", responses=_problems(410, 501))
async def scene(service: Asked, request: Request, name: Name, scene: SceneName) -> TileJson:
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
    responses={200: {"content": {"image/png": {}, "image/webp": {}}}, **_problems(410, 501)},
)
async def scene_tile(
    service: Asked,
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
    dependencies=[Depends(_owner), Depends(_json_only)],
    status_code=202,
    responses=_problems(401, 409, 415),
)
async def add(
    service: Asked, request: Request, response: Response, name: Name, body: AdditionIn
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


@api.get("/archives/{name}/additions", dependencies=[Depends(_owner)], responses=_problems(401))
async def additions(service: Asked, name: Name) -> AdditionsOut:
    """The last additions, newest first. Needs the API key."""
    service.archive(name)
    return AdditionsOut(additions=[_addition_out(a) for a in service.additions.of(name)])


@api.get(
    "/archives/{name}/additions/{id}", dependencies=[Depends(_owner)], responses=_problems(401)
)
async def addition(service: Asked, name: Name, id: ItemId) -> AdditionOut:
    """How far an addition is. Needs the API key."""
    service.archive(name)
    return _addition_out(service.additions.get(name, id))


async def _search(
    service: Service, name: str, query: ArchiveQuery, how: SearchIn, format: Format
) -> Response:
    limit = min(how.limit or how.k, service.settings.max_page)
    hits = await service.search(
        name, query, how.k, filter=await service.run(how.filter.filter), ranking=how.ranking,
        diverse=how.diverse, at_least=how.at_least, offset=how.offset, limit=limit,
    )  # fmt: skip
    some = hits[how.offset : how.offset + limit]
    found = [hit_out(h, n, scene_id(h.source)) for n, h in enumerate(some, how.offset + 1)]
    if format == "geojson":
        return _geojson(found, len(hits), how.offset)
    answer = HitsOut(
        total=len(hits), offset=how.offset, searched=hits.searched, seconds=hits.seconds, hits=found
    )
    return _json(answer)


def _geojson(found: Sequence[TileOut], total: int, offset: int) -> Response:
    features = [feature_out(item) for item in found]
    return _json(FeaturesOut(features=features, total=total, offset=offset), GEOJSON)


def _json(answer: BaseModel, media_type: str = "application/json") -> Response:
    """What is typed already goes out as it is: FastAPI would check every value once more."""
    return Response(answer.model_dump_json(), media_type=media_type)


def _about(service: Service, name: str) -> ArchiveOut:
    about = {"name": name, "ready": name not in service.unready}
    return ArchiveOut.model_validate(service.archive(name).info() | about)


def _sources(service: Service, name: str) -> Callable[[str], str]:
    return lambda scene: service.scenes[name].of(scene).source


def _check_type(upload: UploadFile) -> None:
    kind = (upload.content_type or "").partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise WrongTypeError(f"an uploaded file is an image, not {kind}")


def _valid(**given: Any) -> FilterIn:
    try:
        return FilterIn.model_validate(given)
    except ValidationError as error:
        raise UsageError(_first(error)) from error


def _first(error: ValidationError) -> str:
    """The first of what is wrong, in words."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _json_of(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"geometry: it is not JSON ({error})") from error


_TIME = TypeAdapter(datetime)


def _interval(text: str | None) -> tuple[datetime | None, datetime | None]:
    """Both ends of "A/B", "../B", "A/..", or "A" for that moment; as OGC API – Features has it."""
    if text is None:
        return None, None
    first, slash, last = text.partition("/")
    ends = (first, last if slash else first)
    try:
        start, end = (None if e in ("", "..") else _TIME.validate_python(e) for e in ends)
    except ValidationError as error:
        raise UsageError(f"datetime {text!r}: {_first(error)}") from error
    return start, end


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
