"""Parameters of the REST interface, their validation, and the check of the API key."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, UploadFile
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError

from rsir.errors import UsageError
from rsir.web.problems import ForbiddenError, KeyMissingError, WrongTypeError
from rsir.web.rest.request_types import FilterIn, ResultFormat
from rsir.web.service.service import Service

Name = Annotated[str, Path(description="An archive's name.", max_length=200)]
ItemId = Annotated[str, Path(description="An item's id.", max_length=4096)]
SceneName = Annotated[str, Path(description="A scene's id.", pattern="^[0-9a-f]{16}$")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Number of items to skip.")]
Limit = Annotated[int, Query(ge=1, le=100_000, description="Most items in the response.")]
FormatParameter = Annotated[ResultFormat, Query(description="json, or geojson for GIS programs.")]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]

_bearer = HTTPBearer(
    auto_error=False, scheme_name="key", description="The API key of the service's owner."
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def owner_only(service: ServiceDep, credentials: Credentials) -> None:
    """ForbiddenError if the service has no API key; KeyMissingError if the request lacks it."""
    key = service.settings.api_key
    if key is None:
        raise ForbiddenError("this service only reads: it was started without an API key")
    # Bytes, because compare_digest takes only ASCII text. Its duration reveals nothing of the key.
    if credentials is None or not secrets.compare_digest(
        credentials.credentials.encode(), key.encode()
    ):
        raise KeyMissingError("give the API key as 'Authorization: Bearer KEY'")


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()


def _only(expected: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        media_type = _media_type(request.headers.get("content-type"))
        if media_type != expected:
            raise WrongTypeError(f"send {expected}, not {media_type or 'a body without a type'}")

    return check


json_only = _only("application/json")
multipart_only = _only("multipart/form-data")


def check_image_type(upload: UploadFile) -> None:
    """WrongTypeError for an upload that is declared as something else than an image.

    The format of the image follows from its content, not from the declared type.
    """
    media_type = _media_type(upload.content_type)
    if not media_type.startswith("image/") and media_type not in ("", "application/octet-stream"):
        raise WrongTypeError(f"an uploaded file must be an image, not {media_type}")


def valid_filter(**values: Any) -> FilterIn:
    """A filter from the parameters of an address; UsageError if they are invalid."""
    try:
        return FilterIn.model_validate(values)
    except ValidationError as error:
        raise UsageError(first_message(error)) from error


def first_message(error: ValidationError) -> str:
    """The message of the first validation error, after the location of the value."""
    first = error.errors()[0]
    location = ".".join(str(part) for part in first["loc"])
    return f"{location}: {first['msg']}" if location else str(first["msg"])


def parsed_geometry(text: str | None) -> Any:
    """The JSON value of the parameter `geometry`; UsageError if it is not JSON."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"geometry: it is not JSON ({error})") from error
