"""A TIFF's tag directories, read without decoding a pixel and without a warning.

Pillow and GDAL report damaged tags through the `warnings` module, whose filters are shared by all
threads; images are read in a pool of threads, so the tags are looked at here first and only sound
ones are handed on. TIFF 6.0 (Adobe, 1992) sections 2 and 8; BigTIFF as in libtiff's design note.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SUBFILE_TYPE = 254
WIDTH = 256
HEIGHT = 257
BITS_PER_SAMPLE = 258
COMPRESSION = 259
PHOTOMETRIC = 262
ORIENTATION = 274
SAMPLES_PER_PIXEL = 277
DATETIME = 306
EXTRA_SAMPLES = 338
SAMPLE_FORMAT = 339
PIXEL_SCALE = 33550
TIE_POINTS = 33922
MODEL_TRANSFORMATION = 34264
ICC_PROFILE = 34675
GEO_KEYS = 34735

# type number -> (bytes each, struct letter or None); TIFF 6.0 page 15, BigTIFF adds 13, 16 to 18
_TYPES: dict[int, tuple[int, str | None]] = {
    1: (1, "B"),
    2: (1, None),
    3: (2, "H"),
    4: (4, "L"),
    5: (8, None),
    6: (1, "b"),
    7: (1, None),
    8: (2, "h"),
    9: (4, "l"),
    10: (8, None),
    11: (4, "f"),
    12: (8, "d"),
    13: (4, "L"),
    16: (8, "Q"),
    17: (8, "q"),
    18: (8, "Q"),
}

# Our choice: overviews and masks make a dozen directories; a longer chain is damage or malice.
_MOST_DIRECTORIES = 256


class TiffError(ValueError):
    """These bytes are not a TIFF, or its first directory is damaged."""


@dataclass(frozen=True, slots=True)
class Directory:
    """One image file directory: its sound tags, as (type, bytes of the value).

    A tag whose type is unknown or whose value lies outside the file is left out.
    """

    endian: str
    big: bool
    tags: dict[int, tuple[int, bytes]]

    def numbers(self, tag: int) -> tuple[int | float, ...]:
        """The values of a numeric tag; empty if the tag is missing or is not numeric."""
        kind, value = self.tags.get(tag, (0, b""))
        size, letter = _TYPES.get(kind, (1, None))
        if letter is None:
            return ()
        return struct.unpack(f"{self.endian}{len(value) // size}{letter}", value)

    def integer(self, tag: int, default: int) -> int:
        """The one whole number of a tag, or `default` if it is missing or is no whole number."""
        values = self.numbers(tag)
        return values[0] if values and isinstance(values[0], int) else default

    def integers(self, tag: int) -> tuple[int, ...]:
        """All whole numbers of a tag; empty if it is missing or holds anything else."""
        values = self.numbers(tag)
        return tuple(value for value in values if isinstance(value, int))

    def text(self, tag: int) -> str | None:
        """The first string of an ASCII tag, or None."""
        kind, value = self.tags.get(tag, (0, b""))
        return value.split(b"\0")[0].decode("latin-1") if kind == 2 else None


def directories(data: bytes) -> list[Directory]:
    """The directories of a TIFF or BigTIFF in file order, at most 256; the first is the image.

    A damaged later directory ends the list; TiffError if the first one cannot be read.
    """
    endian = {b"II": "<", b"MM": ">"}.get(data[:2])
    if endian is None or len(data) < 8:
        raise TiffError("not a TIFF")
    magic = struct.unpack_from(f"{endian}H", data, 2)[0]
    if magic not in (42, 43):
        raise TiffError("not a TIFF")
    big = magic == 43
    if big and len(data) < 16:
        raise TiffError("its header is cut off")
    where = struct.unpack_from(f"{endian}{'Q' if big else 'L'}", data, 8 if big else 4)[0]
    found: list[Directory] = []
    seen: set[int] = set()
    while where and where not in seen and len(found) < _MOST_DIRECTORIES:
        seen.add(where)
        try:
            directory, where = _directory(data, where, endian, big)
        except struct.error:
            break
        found.append(directory)
    if not found:
        raise TiffError("its directory of tags is cut off")
    return found


def _directory(data: bytes, where: int, endian: str, big: bool) -> tuple[Directory, int]:
    if where >= len(data):
        raise struct.error("outside the file")
    count_format, entry_format, room = ("Q", "HHQ8s", 8) if big else ("H", "HHL4s", 4)
    (count,) = struct.unpack_from(endian + count_format, data, where)
    where += struct.calcsize(endian + count_format)
    step = struct.calcsize(endian + entry_format)
    if where + count * step > len(data):
        raise struct.error("entries outside the file")
    offset_format = endian + ("Q" if big else "L")
    tags: dict[int, tuple[int, bytes]] = {}
    total = 0
    for _ in range(count):
        tag, kind, number, inline = struct.unpack_from(endian + entry_format, data, where)
        where += step
        if kind not in _TYPES or tag in tags or number == 0:
            continue
        size = number * _TYPES[kind][0]
        if size <= room:
            tags[tag] = kind, inline[:size]
            continue
        # Values may overlap in a hostile file; together they never need more than the file has.
        total += size
        (offset,) = struct.unpack(offset_format, inline)
        if offset + size <= len(data) and total <= len(data):
            tags[tag] = kind, data[offset : offset + size]
    (following,) = (
        struct.unpack_from(offset_format, data.ljust(where), where)
        if (where + room <= len(data))
        else (0,)
    )
    return Directory(endian, big, tags), following


def with_directory(data: bytes, directory: Directory, keep: frozenset[int]) -> bytes:
    """The same file with one directory, holding only the tags in `keep`: nothing else to trip on.

    Offsets into the pixel data stay true, because the new directory is put at the end.
    """
    endian, big = directory.endian, directory.big
    offset_letter, room = ("Q", 8) if big else ("L", 4)
    kept = sorted((tag, *value) for tag, value in directory.tags.items() if tag in keep)
    body = data + b"\0" * (-len(data) % 16)
    start = len(body)
    size = (
        struct.calcsize(f"{endian}{'Q' if big else 'H'}") + len(kept) * (20 if big else 12) + room
    )
    entries = [struct.pack(f"{endian}{'Q' if big else 'H'}", len(kept))]
    outside = bytearray()
    for tag, kind, value in kept:
        if len(value) <= room:
            field = value.ljust(room, b"\0")
        else:
            field = struct.pack(endian + offset_letter, start + size + len(outside))
            outside += value + b"\0" * (len(value) % 2)
        number = len(value) // _TYPES[kind][0]
        entries.append(struct.pack(f"{endian}HH{offset_letter}", tag, kind, number) + field)
    entries.append(bytes(room))
    header = data[: 8 if big else 4] + struct.pack(endian + offset_letter, start)
    return b"".join([header, body[len(header) :], *entries, outside])
