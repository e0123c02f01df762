"""The gate that every file from outside passes before a library of another project reads it.

The gate opens only regular files, tells the format by the first bytes and never by the suffix, and
turns whatever a reader raises into an ImageError of that file.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image
from PIL.ImageFile import ImageFile

from rsir.errors import ImageError, RsirError

Answer = TypeVar("Answer")

HEAD_BYTES = 1 << 16
"""Bytes from the beginning of a file that decide its format. Our choice."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    *((magic, "TIFF") for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_VRT = b"<VRTDataset"
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"\x89HDF", "an HDF5 or NetCDF file"),
    (b"CDF", "a NetCDF file"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"SQLite format 3\0", "an SQLite database"),
)
_log = logging.getLogger(__name__)


def format_of(head: bytes) -> str:
    """The format of a file by its first bytes: PNG, JPEG, WEBP, TIFF, JPEG 2000 or VRT.

    A VRT lists other files, so GDAL opens those too: see `rsir.scenes.vrt`.

    Errors: ImageError for any other format, with its name if it is well known.
    """
    if not head:
        raise ImageError("the file is empty (0 bytes); fetch it again")
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    text = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<") and _VRT in head[:1024]:
        return "VRT"
    if text.lower().startswith((b"<!doctype html", b"<html")) or b"<html" in text.lower():
        raise ImageError("this is a web page, not an image: the download failed; fetch it again")
    if text.startswith(b"version https://git-lfs"):
        raise ImageError("this is a Git LFS pointer, not the image; run 'git lfs pull'")
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise ImageError(f"this is {name}; convert it to PNG, JPEG, WebP or GeoTIFF")
    raise ImageError("this is not an image of a known format; give PNG, JPEG, WebP or TIFF")


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """All bytes of a regular file.

    most: the maximum size in bytes. Errors: ImageError, also for a larger file.
    """
    with opened(path) as (stream, size):
        if size > most:
            raise ImageError(
                f"{size} bytes, more than {most}: a scene, not a chip; cut it into tiles"
            )
        data = stream.read(most + 1)  # one byte more, because the file may grow
    if len(data) > most:
        raise ImageError(f"grew above {most} bytes while it was read; try again")
    return data


def read_head(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """The first HEAD_BYTES of a regular file, and the file's size in bytes.

    Errors: ImageError.
    """
    with opened(path) as (stream, size):
        return stream.read(HEAD_BYTES), size


def pillow_image(stream: BinaryIO, format_name: str) -> ImageFile:
    """Pillow's image of a stream; only its header is read.

    format_name: PNG, JPEG, WEBP or TIFF, from `format_of`. Errors: ImageError for an image above
    Pillow's own limit; anything else that Pillow's readers raise for damaged bytes.
    """
    # Image.open does not fit: it warns of large sizes, it hides why a reader fails, and it takes a
    # JPEG that is followed by a preview (MPO, which cameras and drones write) for an animation.
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    readers: dict[str, type[ImageFile]] = {
        "JPEG": JpegImageFile, "PNG": PngImageFile, "TIFF": TiffImageFile, "WEBP": WebPImageFile,
    }  # fmt: skip
    try:
        return readers[format_name](stream)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{error}: a scene, not a chip; cut it into tiles") from error


def from_header(
    path: str | os.PathLike[str], read: Callable[[ImageFile], Answer], unknown: Answer
) -> Answer:
    """What `read` finds in the header of a local image file; `unknown` if that is damaged.

    For questions beside the pixels: what is wrong with a file is said where its pixels are read.
    Errors: MemoryError.
    """
    try:
        with opened(path) as (stream, _):
            format_name = format_of(stream.read(HEAD_BYTES))
            stream.seek(0)
            return read(pillow_image(stream, format_name))
    except MemoryError:
        raise
    except Exception:  # Pillow's readers raise nearly anything, KeyError for another format
        _log.debug("the header of %s cannot be read", path, exc_info=True)
        return unknown


@contextmanager
def guarded(name: str = "") -> Iterator[None]:
    """Turn everything that a reader raises into an ImageError that begins with a file's name.

    Hostile or damaged bytes make readers raise nearly anything, MemoryError included. Other errors
    of rsir, and an ImportError, pass unchanged. The traceback goes to the log at level DEBUG.
    """
    prefix = f"{name}: " if name else ""
    try:
        yield
    except ImageError as error:
        raise ImageError(prefix + str(error).removeprefix(prefix)) from error.__cause__
    except (RsirError, ImportError):
        raise
    except MemoryError:
        raise ImageError(
            f"{prefix}not enough memory to read it; lower the number of workers, or cut it into "
            "smaller files"
        ) from None
    except Exception as error:
        _log.debug("%s cannot be read", name or "an image", exc_info=True)
        raise ImageError(f"{prefix}damaged or cut off ({reason(error)}); fetch it again") from error


def check_inside(document: str | os.PathLike[str], file: str) -> None:
    """Check that a list of files (a STAC item, a VRT) may name a local file.

    It may name files below its own folder, and below the folders of the environment variable
    RSIR_FOLDERS (separated as in PATH). Links are not resolved.

    Errors: ImageError.
    """
    folders = [absolute(document).parent]
    names = os.environ.get("RSIR_FOLDERS", "").split(os.pathsep)
    folders += [absolute(name) for name in names if name]
    path = absolute(file)
    if not any(path.is_relative_to(folder) for folder in folders):
        raise ImageError(
            f"it names {file}, which is not below its own folder; if you trust it, allow that "
            f"folder: RSIR_FOLDERS={path.parent}"
        )


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path without "..", with its links as they are."""
    # Path.absolute keeps "..", and Path.resolve follows links.
    return Path(os.path.abspath(path))  # noqa: PTH100


def reason(error: BaseException) -> str:
    """The message of the first cause; rasterio's own is only 'see previous exception'."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """A stream of the bytes of a regular file, and the file's size in bytes, more than 0.

    Errors: ImageError for anything that is not a regular file with content.
    """
    # Without O_NONBLOCK, opening a named pipe waits for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise ImageError("the file no longer exists; index its folder again to prune it") from None
    except IsADirectoryError:
        raise ImageError("this is a folder; give a file in it") from None
    except PermissionError:
        raise ImageError("permission denied; make the file readable for this user") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"cannot be read ({error}); check the disk and the path") from error
    try:
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            raise ImageError("this is a folder; give a file in it")
        if not stat.S_ISREG(state.st_mode):
            raise ImageError("this is a pipe, a socket or a device, not a file; remove it")
        # The kernel's own files have no size, and reading some of them blocks for ever.
        if state.st_size == 0 or state.st_dev in _kernel_devices():
            raise ImageError("the file is empty (0 bytes); fetch it again")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield stream, state.st_size
    except OSError as error:
        raise ImageError(f"cannot be read ({error}); check the disk and the path") from error
    finally:
        os.close(descriptor)


def _kernel_devices() -> frozenset[int]:
    """The devices of the kernel's file systems; files in them are no data."""
    folders = (Path("/proc"), Path("/sys"))
    return frozenset(folder.stat().st_dev for folder in folders if folder.is_mount())
