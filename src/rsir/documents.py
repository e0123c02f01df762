"""Read JSON that somebody else wrote: of bounded size and depth, and an object at its top."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

MOST_BYTES = 64 << 20
"""Bytes of the largest document. Our choice: the record of a training run has kilobytes, and a
page of STAC items megabytes."""

MOST_LEVELS = 100
"""Levels of nesting. Our choice: GeoJSON has six, and STAC a dozen."""


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in a text; NaN and infinite numbers become None.

    Errors: ValueError, with a reason in one line, for anything else: no JSON, no object, bytes that
    are not UTF-8, too many levels, an integer of thousands of digits, a document above MOST_BYTES.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")  # some programs write a byte order mark
        document = json.loads(text, parse_float=_finite, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from error
    except ValueError as error:  # UnicodeDecodeError, and integers of more than 4,300 digits
        raise ValueError(f"not readable as JSON ({error})") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    if levels(document) > MOST_LEVELS:
        raise ValueError("it is nested too deeply")
    return document


def _finite(text: str) -> float | None:
    value = float(text)  # "1e999" is infinite
    return value if math.isfinite(value) else None


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file, as by `parse_object`.

    Errors: OSError if the file cannot be read; ValueError for its content.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is not a regular file")
    with file.open("rb") as stream:
        return parse_object(stream.read(MOST_BYTES + 1))


def levels(document: Any) -> int:
    """How deeply a JSON value is nested: 0 for a number, 1 for an empty list."""
    depth, here = 0, [document]
    while here := [part for part in here if isinstance(part, dict | list)]:
        depth += 1
        here = [
            inner for part in here for inner in (part.values() if isinstance(part, dict) else part)
        ]
    return depth
