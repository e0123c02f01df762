"""The errors of the service and their HTTP statuses: one table for service and client.

The service answers an error with a problem (RFC 9457): {"type": "/problems/image", "title": …,
"status": 422, "detail": the error's message}. This module needs no web library.
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
    """The archive has the record, but its file is gone or no longer readable."""


class KeyMissingError(RsirError):
    """Adding and deleting need the API key."""


class ForbiddenError(RsirError):
    """The settings of the service do not allow the request."""


class TooLargeError(RsirError):
    """The request, or the image in it, is larger than the service accepts."""


class WrongTypeError(RsirError):
    """The service does not accept the content type of the request."""


class TooSlowError(RsirError):
    """The request did not arrive within the time limit."""


class BusyError(RsirError):
    """Other work has to end first."""


class OverloadedError(RsirError):
    """The service has too many requests now; retry_after: seconds to wait."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A row of the table. name: the last part of the problem's type."""

    error: type[Exception]
    status: int
    name: str
    title: str


KINDS = (
    ProblemKind(UsageError, 422, "usage", "The request does not make sense"),
    ProblemKind(ImageError, 422, "image", "The image cannot be read faithfully"),
    ProblemKind(DataError, 422, "data", "A named file or item is missing or inconsistent"),
    ProblemKind(UnknownIdError, 404, "unknown-id", "The archive has no such item"),
    ProblemKind(NotFoundError, 404, "not-found", "Not found"),
    ProblemKind(GoneError, 410, "gone", "The file of this item is gone"),
    ProblemKind(KeyMissingError, 401, "key", "The API key is missing or wrong"),
    ProblemKind(ForbiddenError, 403, "forbidden", "Not allowed on this service"),
    ProblemKind(TooLargeError, 413, "too-large", "Too large"),
    ProblemKind(WrongTypeError, 415, "wrong-type", "Unsupported type"),
    ProblemKind(TooSlowError, 408, "too-slow", "The request took too long to arrive"),
    ProblemKind(BusyError, 409, "busy", "Other work has to end first"),
    ProblemKind(OverloadedError, 503, "overloaded", "The service is overloaded"),
    ProblemKind(ArchiveError, 503, "archive", "The archive cannot be used now"),
    ProblemKind(ModelError, 503, "model", "The archive's model cannot be used"),
    ProblemKind(MissingExtraError, 501, "extra", "A library is not installed on the service"),
    ProblemKind(Exception, 500, "internal", "Internal error of the service"),
)
"""The table. Of several rows that fit an error, the row of its nearest class counts."""

_BY_CLASS = {kind.error: kind for kind in KINDS}
_BY_NAME = {kind.name: kind for kind in KINDS}


def problem_kind(error: Exception) -> ProblemKind:
    """The row of the table for an error: that of its nearest class."""
    return next(_BY_CLASS[base] for base in type(error).__mro__ if base in _BY_CLASS)


def body_of(error: Exception) -> dict[str, Any]:
    """The problem of an error (RFC 9457); it hides the message of an internal error."""
    kind = problem_kind(error)
    internal = kind.error is Exception
    return {
        "type": f"/problems/{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": "see the service's log under this request's id" if internal else str(error),
    }


def error_of(body: Any, status: int, retry_after: int | None = None) -> Exception:
    """The error that the service raised, with its class and message, made from a problem."""
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
