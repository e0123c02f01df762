"""What goes wrong, as HTTP says it: one table of errors and statuses, for service and client.

A problem is answered as RFC 9457 has it: {"type": "/problems/image", "title": …, "status": 422,
"detail": the error's message}. Nothing here needs a web library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsir.errors import (
    ArchiveError,
    DataError,
    ImageError,
    MissingExtraError,
    ModelError,
    RsirError,
    UnknownIdError,
    UsageError,
)

PROBLEM_JSON = "application/problem+json"


class NotFoundError(ArchiveError):
    """There is no archive, item, scene or addition of that name."""


class GoneError(ImageError):
    """The record is there, but its file is gone or cannot be read any more."""


class KeyMissingError(RsirError):
    """Adding and deleting need the API key."""


class ForbiddenError(RsirError):
    """The service is not set up to do that."""


class TooLargeError(RsirError):
    """The request, or the image in it, is larger than the service takes."""


class WrongTypeError(RsirError):
    """The content of the request is of another type than the service takes."""


class TooSlowError(RsirError):
    """The request did not come within the time that the service waits."""


class BusyError(RsirError):
    """Something else that is under way has to end first."""


class OverloadedError(RsirError):
    """More requests than the service can take now; retry_after: seconds to wait."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table. name: the last part of the problem's type."""

    error: type[Exception]
    status: int
    name: str
    title: str


KINDS = (
    Kind(UsageError, 422, "usage", "The request does not make sense"),
    Kind(ImageError, 422, "image", "The image cannot be read faithfully"),
    Kind(DataError, 422, "data", "What was named is missing or inconsistent"),
    Kind(UnknownIdError, 404, "unknown-id", "The archive has no such item"),
    Kind(NotFoundError, 404, "not-found", "Not found"),
    Kind(GoneError, 410, "gone", "The file of this item is gone"),
    Kind(KeyMissingError, 401, "key", "The API key is missing or wrong"),
    Kind(ForbiddenError, 403, "forbidden", "Not allowed on this service"),
    Kind(TooLargeError, 413, "too-large", "Too large"),
    Kind(WrongTypeError, 415, "wrong-type", "Unsupported type"),
    Kind(TooSlowError, 408, "too-slow", "The request took too long to arrive"),
    Kind(BusyError, 409, "busy", "Something else is under way"),
    Kind(OverloadedError, 503, "overloaded", "The service is overloaded"),
    Kind(ArchiveError, 503, "archive", "The archive cannot be used now"),
    Kind(ModelError, 503, "model", "The archive's model cannot be used"),
    Kind(MissingExtraError, 501, "extra", "A library is not installed on the service"),
    Kind(Exception, 500, "internal", "An error of the service"),
)
"""Which error is answered by which status: the row of its nearest class."""

_BY_CLASS = {kind.error: kind for kind in KINDS}
_BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(error: Exception) -> Kind:
    """The row of an error: that of its nearest class."""
    return next(_BY_CLASS[known] for known in type(error).__mro__ if known in _BY_CLASS)


def body_of(error: Exception) -> dict[str, Any]:
    """The problem of an error, as RFC 9457 has it; an error of the service keeps its details."""
    kind = kind_of(error)
    internal = kind.error is Exception
    return {
        "type": f"/problems/{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": "see the service's log under this request's id" if internal else str(error),
    }


def error_of(body: Any, status: int, retry_after: int | None = None) -> Exception:
    """The error that a problem stands for: the class that the service raised, with its message."""
    problem = body if isinstance(body, dict) else {}
    name = str(problem.get("type", "")).removeprefix("/problems/")
    detail = str(problem.get("detail") or problem.get("title") or f"the service answered {status}")
    kind = _BY_NAME.get(name)
    if kind is None or kind.error is Exception:
        return RsirError(f"the service answered {status}: {detail}")
    if kind.error is OverloadedError:
        return OverloadedError(detail, retry_after=retry_after or 1)
    if kind.error is MissingExtraError:
        return RsirError(f"on the service, {detail}")
    return kind.error(detail)
