"""Read the tags of a TIFF or a BigTIFF without decoding a pixel.

Pillow reads them, and reports odd tags through `warnings`; `ignore_warnings` silences these.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator

from PIL.TiffImagePlugin import ImageFileDirectory_v2

Directory = ImageFileDirectory_v2
"""The tags of one image in a file; `integer` and `integers` read them."""

SUBFILE_TYPE = 254
WIDTH = 256
HEIGHT = 257
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
STRIP_OFFSETS = 273
ORIENTATION = 274
SAMPLES_PER_PIXEL = 277
STRIP_BYTES = 279
TILE_WIDTH = 322
TILE_HEIGHT = 323
TILE_OFFSETS = 324
TILE_BYTES = 325
EXTRA_SAMPLES = 338
DATE_TIME = 306
SAMPLE_FORMAT = 339
TIE_POINTS = 33922
MODEL_TRANSFORMATION = 34264
GEO_KEYS = 34735

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF (*) or a BigTIFF (+)."""

# Our choice: overviews and masks make a dozen directories; a longer chain is damage or malice.
_MAX_DIRECTORIES = 256

_filters = threading.Lock()


def ignore_warnings(category: type[Warning], module: str = "") -> None:
    """Ignore warnings of a category in modules that match `module`, in the whole process.

    Before Python 3.14 all threads share the warning filters, so `warnings.catch_warnings` in one
    thread races with the other threads. This filter is set once and stays.
    """
    pattern = re.compile(module) if module else None
    with _filters:
        for action, message, kind, modules, _ in warnings.filters:
            if message is None and issubclass(category, kind) and modules in (None, pattern):
                # Python applies the first filter that matches.
                if action == "ignore":
                    return
                break
        warnings.filterwarnings("ignore", category=category, module=module)


def directories(data: bytes) -> Iterator[Directory]:
    """The directories of a TIFF in file order, at most 256; the first one is the image's.

    Tags are left out if their type is unknown, if their value lies outside the file, or if the
    values together are larger than the file.

    Errors: ValueError if the data is not a TIFF, or where a directory is cut off.
    """
    if not data.startswith(MAGIC):
        raise ValueError("not a TIFF")
    ignore_warnings(UserWarning, r"PIL\.")
    size = 16 if b"+" in data[:4] else 8
    if len(data) < size:
        raise ValueError("its header is cut off")
    header = data[:size]
    stream = io.BytesIO(data)
    following = Directory(header).next or len(data)
    seen = {0}  # ends the chain
    while following not in seen and len(seen) <= _MAX_DIRECTORIES:
        directory = Directory(header)
        stream.seek(min(following, len(data)))
        directory.next = -1  # `load` changes this unless the directory is cut off
        directory.load(stream)
        if directory.next < 0:
            raise ValueError("a directory of its tags is cut off")
        yield directory
        seen.add(following)
        following = directory.next


def numbers(directory: Directory, tag: int) -> tuple[int | float, ...]:
    """The numbers of a tag; empty if it is missing or is not numeric."""
    value = directory.get(tag, ())
    values = tuple(value) if isinstance(value, tuple | bytes) else (value,)
    return tuple(number for number in values if isinstance(number, int | float))


def integers(directory: Directory, tag: int) -> tuple[int, ...]:
    """The whole numbers of a tag; empty if it is missing or holds none."""
    return tuple(number for number in numbers(directory, tag) if isinstance(number, int))


def integer(directory: Directory, tag: int, default: int) -> int:
    """The first whole number of a tag; `default` if it is missing or holds none."""
    return next(iter(integers(directory, tag)), default)
