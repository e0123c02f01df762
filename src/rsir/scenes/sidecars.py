"""The sidecar files of a raster, which GDAL reads with it, and the checks that they pass first."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from rsir.errors import ImageError
from rsir.sources.gate import guarded

_MOST_TEXT_BYTES = 16 << 20
"""Bytes of the largest text file beside an image. Our choice: an .aux.xml with a table of
attributes has megabytes, all others have kilobytes."""

RASTERS = (".ovr", ".OVR", ".msk", ".MSK")
"""Overviews and mask: rasters, whose suffix follows the whole name of the file. GDAL tries both
spellings of this and of the suffixes below."""

# GDAL, 'Raster Data Model' and 'World files'; RPC and IMD: 'RPC_TXT', 'Imagery metadata'. The
# suffix follows the whole name ("{name}") or the stem.
_TEXTS = (
    "{name}.aux.xml", "{stem}.aux.xml", "{stem}.tab", "{stem}.TAB", "{stem}.wld", "{stem}.WLD",
    "{name}w",
    "{stem}_RPC.TXT", "{stem}_rpc.txt", "{stem}.RPB", "{stem}.rpb",
)  # fmt: skip
_WORLD = {
    ".tif": ".tfw", ".tiff": ".tfw", ".png": ".pgw", ".jpg": ".jgw", ".jpeg": ".jgw",
    ".jp2": ".j2w", ".j2k": ".j2w", ".webp": ".wpw",
}  # fmt: skip
# GDAL opens these too once it looks for any sidecar file.
_METADATA = (
    "METADATA.DIM", "metadata.dim", "{stem}.IMD", "{stem}.imd", "{stem}.PVL", "{stem}.pvl",
    "{stem}_MTL.txt", "{stem}_MTL.TXT", "{stem}_metadata.txt", "{stem}.XML", "{stem}.xml",
    "{stem}_pass.txt", "{stem}.aux", "{name}.aux", "{stem}.AUX", "{name}.AUX",
)  # fmt: skip


def sidecars_of(image: Path) -> tuple[list[Path], list[Path]]:
    """The existing sidecar rasters, and the existing sidecar texts, of a local file."""
    rasters = [image.with_name(image.name + suffix) for suffix in RASTERS]
    world = _WORLD.get(image.suffix.lower(), "")
    texts = [*_expanded(image, _TEXTS)]
    if world:
        texts += [image.with_suffix(world), image.with_suffix(world.upper())]
    return [file for file in rasters if _exists(file)], [file for file in texts if _exists(file)]


def check_texts(image: Path, texts: list[Path]) -> None:
    """Check that the sidecar texts, and what else GDAL opens with them, are small regular files.

    Errors: ImageError.
    """
    others = [file for file in _expanded(image, _METADATA) if _exists(file)]
    for file in (*texts, *others):
        with guarded(f"its sidecar file {file.name}"):
            state = file.stat()
            if not stat.S_ISREG(state.st_mode):
                raise ImageError("is not a regular file; remove it")
            if state.st_size > _MOST_TEXT_BYTES:
                raise ImageError(f"has more than {_MOST_TEXT_BYTES} bytes; remove it")
            if file.suffix.lower() == ".aux":
                raise ImageError("is of ERDAS, and may name other files; remove it")


def _expanded(image: Path, templates: tuple[str, ...]) -> Iterator[Path]:
    for template in templates:
        yield image.with_name(template.format(name=image.name, stem=image.stem))


def _exists(file: Path) -> bool:
    try:
        file.stat()
    except (OSError, ValueError):  # a name that is too long has no file
        return False
    return True
