"""Responses of the REST interface, JSON or GeoJSON, and their descriptions for OpenAPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response
from pydantic import BaseModel

from rsir.web.problems import KINDS, PROBLEM_JSON
from rsir.web.rest.response_types import FeaturesOut, Problem, TileOut, feature_out

GEOJSON = "application/geo+json"


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the problems that an address may answer with, by status."""
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


COMMON = (400, 403, 404, 408, 413, 422, 500, 503)
"""Statuses of the problems that every address below /api may answer with."""
ALSO_GEOJSON: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            GEOJSON: {"schema": {"$ref": "#/components/schemas/FeaturesOut"}},
            "application/json": {},
        }
    }
}


def geojson_response(items: Sequence[TileOut], total: int, offset: int) -> Response:
    """Items or hits as a FeatureCollection: those from `offset` on, of `total`."""
    features = [feature_out(item) for item in items]
    return json_response(FeaturesOut(features=features, total=total, offset=offset), GEOJSON)


def json_response(body: BaseModel, media_type: str = "application/json") -> Response:
    """A valid model as JSON; FastAPI itself would validate every value again."""
    return Response(body.model_dump_json(), media_type=media_type)
