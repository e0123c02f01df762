"""How the REST interface answers: JSON, GeoJSON, and what OpenAPI says of both and of problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response
from pydantic import BaseModel

from rsir.web.problems import KINDS, PROBLEM_JSON
from rsir.web.rest.models import FeaturesOut, Problem, TileOut, feature_out

GEOJSON = "application/geo+json"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
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


ALWAYS = (400, 403, 404, 408, 413, 422, 500, 503)
ALSO_GEOJSON: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            GEOJSON: {"schema": {"$ref": "#/components/schemas/FeaturesOut"}},
            "application/json": {},
        }
    }
}


def geojson(found: Sequence[TileOut], total: int, offset: int) -> Response:
    """Items or hits, those from `offset` on of `total`, as a FeatureCollection."""
    features = [feature_out(item) for item in found]
    return json_answer(FeaturesOut(features=features, total=total, offset=offset), GEOJSON)


def json_answer(answer: BaseModel, media_type: str = "application/json") -> Response:
    """What is typed already goes out as it is: FastAPI would check every value once more."""
    return Response(answer.model_dump_json(), media_type=media_type)
