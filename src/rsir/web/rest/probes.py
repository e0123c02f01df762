"""Addresses of the service itself: whether it runs, its metrics, and its kinds of problems."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from rsir.errors import ArchiveError
from rsir.version import VERSION
from rsir.web.problems import KINDS, NotFoundError, OverloadedError, ProblemKind
from rsir.web.prometheus import CONTENT_TYPE
from rsir.web.rest.parameters import ServiceDep
from rsir.web.rest.response_types import HealthOut, ReadyOut
from rsir.web.rest.responses import problem_responses

probes = APIRouter(tags=["service"])


@probes.get("/health")
async def health() -> HealthOut:
    """Whether the service runs."""
    return HealthOut(version=VERSION)


@probes.get("/ready", responses={503: {"model": ReadyOut, "description": "Not yet."}})
async def ready(service: ServiceDep, response: Response) -> ReadyOut:
    """Whether the models and vectors of all archives are loaded and can be read: 200, else 503."""
    waiting = dict(service.unready)
    for name in service.archives.keys() - waiting.keys():
        try:
            await service.run(service.archive(name).count)
        except OverloadedError:  # busy with searches, so it is ready
            break
        except ArchiveError as error:
            waiting[name] = str(error)
    response.status_code = 503 if waiting else 200
    return ReadyOut(ready=not waiting, waiting_for=waiting)


@probes.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: ServiceDep) -> Response:
    """Counters and durations for Prometheus."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


@probes.get("/problems")
async def problems() -> list[dict[str, Any]]:
    """The types of problems, with their statuses."""
    return [_row(kind) for kind in KINDS]


@probes.get("/problems/{name}", responses=problem_responses(404))
async def problem(name: str) -> dict[str, Any]:
    """One type of problem."""
    for kind in KINDS:
        if kind.name == name:
            return _row(kind)
    raise NotFoundError(f"there is no problem {name!r}")


def _row(kind: ProblemKind) -> dict[str, Any]:
    return {"type": f"/problems/{kind.name}", "status": kind.status, "title": kind.title}
