"""Tags of TIFFs: against what was written; hostile directories stay small and say why."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from rsir.geo import tiff_tags as tiff


def written(pages: int = 1, **options: object) -> bytes:
    images = [Image.fromarray(np.zeros((3 + i, 5), np.uint8)) for i in range(pages)]
    buffer = io.BytesIO()
    images[0].save(buffer, "TIFF", save_all=True, append_images=images[1:], **options)
    return buffer.getvalue()


def by_hand(*tags: tuple[int, int, int, bytes], endian: str = "<", tail: bytes = b"") -> bytes:
    """A TIFF of one directory with these tags: (tag, type, count, four bytes of value)."""
    entries = b"".join(struct.pack(f"{endian}HHL", *tag[:3]) + tag[3] for tag in tags)
    magic = b"II*\0" if endian == "<" else b"MM\0*"
    head = magic + struct.pack(f"{endian}LH", 8, len(tags))
    return head + entries + bytes(4) + tail


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}])
def test_directories_in_file_order(options):
    found = list(tiff.directories(written(3, **options)))
    heights = [tiff.integer(directory, tiff.HEIGHT, 0) for directory in found]
    assert heights == [3, 4, 5]
    assert [tiff.integers(directory, tiff.BITS_PER_SAMPLE) for directory in found] == [(8,)] * 3


@pytest.mark.parametrize("endian", ["<", ">"])
def test_numbers_of_every_type(endian):
    data = by_hand(
        (256, 3, 1, struct.pack(f"{endian}HH", 7, 0)),
        (257, 4, 1, struct.pack(f"{endian}L", 70_000)),
        (258, 3, 2, struct.pack(f"{endian}HH", 8, 16)),
        (322, 2, 3, b"ab\0\0"),
        (339, 1, 2, b"\1\3\0\0"),
        (50000, 11, 1, struct.pack(f"{endian}f", 0.5)),
        (50001, 99, 1, bytes(4)),
        endian=endian,
    )
    (tags,) = tiff.directories(data)
    assert tiff.integer(tags, tiff.WIDTH, 0) == 7
    assert tiff.integer(tags, tiff.HEIGHT, 0) == 70_000
    assert tiff.integers(tags, tiff.BITS_PER_SAMPLE) == (8, 16)
    assert tiff.integers(tags, tiff.SAMPLE_FORMAT) == (1, 3)
    assert tiff.numbers(tags, 50000) == (0.5,)
    assert tiff.integers(tags, 50000) == ()
    assert 50001 not in tags
    assert tiff.integer(tags, tiff.TILE_WIDTH, 3) == 3  # text is no number
    assert tiff.integer(tags, tiff.COMPRESSION, 1) == 1  # missing


@pytest.mark.parametrize(
    "data",
    [b"", b"II*\0", b"\x89PNG\r\n\x1a\n" + bytes(50), b"II+\0\x08\0\0\0", b"II*\0" + bytes(4)],
)
def test_what_is_no_tiff_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"not a TIFF|cut off"):
        list(tiff.directories(data))


def test_a_directory_that_is_cut_off_is_a_value_error():
    data = written(2)
    first, second = tiff.directories(data)
    assert len(first) == len(second)
    start = first.next
    for length in range(start, start + 2 + 12 * len(second) + 4):
        cut = tiff.directories(data[:length])
        next(cut)
        with pytest.raises(ValueError, match="cut off"):
            next(cut)


def test_a_chain_that_returns_to_itself_ends():
    data = bytearray(by_hand((256, 3, 1, b"\7\0\0\0")))
    data[-4:] = struct.pack("<L", 8)
    assert len(list(tiff.directories(bytes(data)))) == 1


def test_values_that_overlap_take_no_more_room_than_the_file():
    # Each of 2,000 tags names the same 100,000 bytes: 200 MB, were they all read.
    entries = [(1000 + i, 7, 100_000, struct.pack("<L", 24_014)) for i in range(2000)]
    data = by_hand(*entries, tail=bytes(100_000))
    (tags,) = tiff.directories(data)
    assert 0 < sum(len(tags[tag]) for tag in tags) <= len(data)


def test_ignored_warnings_stay_ignored_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiff.ignore_warnings(UserWarning, r"PIL\.")
        filters = list(warnings.filters)
        tiff.ignore_warnings(UserWarning, r"PIL\.")
        assert list(warnings.filters) == filters
        TiffImagePlugin.ImageFileDirectory_v2().load(io.BytesIO(b"\1\0"))  # Pillow warns
        with pytest.raises(UserWarning, match="other"):
            warnings.warn("other", stacklevel=1)
        # Where someone makes them errors again, they are ignored again.
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            TiffImagePlugin.ImageFileDirectory_v2().load(io.BytesIO(b"\1\0"))
        tiff.ignore_warnings(UserWarning, r"PIL\.")
        TiffImagePlugin.ImageFileDirectory_v2().load(io.BytesIO(b"\1\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters = list(warnings.filters)
        tiff.ignore_warnings(UserWarning, r"PIL\.")
        assert list(warnings.filters) == filters
