"""What the addresses of the REST interface take, who may ask, and how it is checked."""

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
from rsir.web.rest.models import FilterIn, Format
from rsir.web.service.service import Service

Name = Annotated[str, Path(description="An archive's name.", max_length=200)]
ItemId = Annotated[str, Path(description="An item's id.", max_length=4096)]
SceneName = Annotated[str, Path(description="A scene's id.", pattern="^[0-9a-f]{16}$")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Items left out before the first.")]
Limit = Annotated[int, Query(ge=1, le=100_000, description="Items answered at most.")]
As = Annotated[Format, Query(description="json, or geojson for GIS programs.")]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]

_bearer = HTTPBearer(
    auto_error=False, scheme_name="key", description="The API key of the service's owner."
)


def owner(
    service: ServiceDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Lets nobody pass who does not have the API key."""
    key = service.settings.api_key
    if key is None:
        raise ForbiddenError("this service only reads: it was started without an API key")
    # As bytes: compare_digest takes no text beyond ASCII. Its time does not tell where they differ.
    if given is None or not secrets.compare_digest(given.credentials.encode(), key.encode()):
        raise KeyMissingError("give the API key as 'Authorization: Bearer KEY'")


def _type_of(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()


def _only(wanted: str) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        kind = _type_of(request.headers.get("content-type"))
        if kind != wanted:
            raise WrongTypeError(f"send {wanted}, not {kind or 'a body without a type'}")

    return check


json_only = _only("application/json")
multipart_only = _only("multipart/form-data")


def check_image(upload: UploadFile) -> None:
    """WrongTypeError for what is said to be no image; what it is, its content says."""
    kind = _type_of(upload.content_type)
    if kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise WrongTypeError(f"an uploaded file is an image, not {kind}")


def valid_filter(**given: Any) -> FilterIn:
    """A filter of the parameters of an address; UsageError for what is none."""
    try:
        return FilterIn.model_validate(given)
    except ValidationError as error:
        raise UsageError(first_of(error)) from error


def first_of(error: ValidationError) -> str:
    """The first of what is wrong, in words."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def json_of(text: str | None) -> Any:
    """The parameter `geometry`; UsageError if it is not JSON."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"geometry: it is not JSON ({error})") from error
