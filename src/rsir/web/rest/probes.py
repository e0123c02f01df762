"""What is asked of the service itself: whether it runs, its numbers, and what can go wrong."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from rsir.version import VERSION
from rsir.web import prometheus as metrics
from rsir.web.problems import KINDS, NotFoundError
from rsir.web.rest import responses as answers
from rsir.web.rest.models import HealthOut, ReadyOut
from rsir.web.rest.parameters import ServiceDep

probes = APIRouter(tags=["service"])


@probes.get("/health")
async def health() -> HealthOut:
    """Whether the service runs."""
    return HealthOut(version=VERSION)


@probes.get("/ready", responses={503: {"model": ReadyOut, "description": "Not yet."}})
async def ready(service: ServiceDep, response: Response) -> ReadyOut:
    """Whether every archive's model and vectors are loaded: 200, or 503 until then."""
    waiting = dict(service.unready)
    response.status_code = 503 if waiting else 200
    return ReadyOut(ready=not waiting, waiting_for=waiting)


@probes.get("/metrics", response_class=PlainTextResponse)
async def prometheus(service: ServiceDep) -> Response:
    """Counters and durations for Prometheus."""
    return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


@probes.get("/problems")
async def problems() -> list[dict[str, Any]]:
    """What can go wrong: the types of problems, with their statuses."""
    return [{"type": f"/problems/{k.name}", "status": k.status, "title": k.title} for k in KINDS]


@probes.get("/problems/{name}", responses=answers.problems(404))
async def problem(name: str) -> dict[str, Any]:
    """One type of problem."""
    for kind in KINDS:
        if kind.name == name:
            return {"type": f"/problems/{name}", "status": kind.status, "title": kind.title}
    raise NotFoundError(f"there is no problem {name!r}")
