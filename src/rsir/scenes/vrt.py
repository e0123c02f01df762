"""The files that a VRT names, and which of them it may name.

A VRT lists other rasters. A stranger's VRT could name any file of this machine or any address, so
rsir reads a VRT only if the user names it, and only if all its files lie in its own folder or in
the folders of the environment variable RSIR_FOLDERS.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from rsir.errors import ImageError
from rsir.sources.gate import check_inside, read_bytes

_MOST_BYTES = 64 << 20  # our choice: a VRT of 10^5 files has some 50 MB
_MOST_DEPTH = 64  # our choice: GDAL's own VRTs have a dozen levels
_MOST_VRTS = 4  # our choice: VRTs that name VRTs
_ADDRESS = re.compile(r"://|/vsi|^\s*<", re.IGNORECASE)
_PREFIX = re.compile(r"\w{2,}:")  # "HDF5:…", "GTIFF_DIR:…"
# GDAL opens what stands in these; elsewhere a text is a name only if there is such a file.
_SOURCES = frozenset({"SourceFilename", "SourceDataset"})
# Elements whose text may contain an address that GDAL does not open.
_PROSE = re.compile(r"(?i)file|dataset|dem|path|url")


def named_files(vrt: Path, depth: int = 0) -> list[Path]:
    """The files that a VRT names, each once.

    depth: the number of VRTs that led to this one.

    Errors: ImageError if it names an address or a file outside the folders, if its name does not
    end in .vrt, if it is not XML, or if it reads raw bytes.
    """
    if vrt.suffix.lower() != ".vrt":
        raise ImageError("is a VRT, which names other files; call it .vrt to have it read")
    if depth > _MOST_VRTS:
        raise ImageError(f"VRTs that name VRTs, more than {_MOST_VRTS} deep")
    text = read_bytes(vrt, _MOST_BYTES)
    if b"<!" in text.replace(b"<!--", b""):
        raise ImageError("a VRT with a document type or CDATA is not read")
    found: dict[Path, None] = {}
    try:
        for name, is_source in _names(text):
            if _ADDRESS.search(name) or (is_source and _PREFIX.match(name)):
                raise ImageError(f"it names {name[:200]!r}; a VRT may only name files beside it")
            # GDAL resolves names relative to the VRT or to the current folder.
            for file in {Path(os.path.abspath(vrt.parent / name)), Path(os.path.abspath(name))}:  # noqa: PTH100
                if os.path.lexists(file) and not file.is_dir():
                    check_inside(vrt, str(file))
                    found[file] = None
    except ElementTree.ParseError as error:
        raise ImageError(f"is not a valid VRT ({error})") from error
    return list(found)


def _names(text: bytes) -> Iterator[tuple[str, bool]]:
    """The texts that may be names of files, and whether GDAL certainly opens them."""
    depth = 0
    for event, element in ElementTree.iterparse(io.BytesIO(text), ("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > _MOST_DEPTH:
            raise ImageError("a VRT that is nested too deeply")
        if event == "start":
            if element.get("subClass") == "VRTRawRasterBand":
                raise ImageError("a VRT that reads raw bytes; convert it: gdal_translate")
            continue
        key = element.get("key") or element.get("name") or ""
        if element.tag == "MDI" and not _PROSE.search(key):
            continue
        for value in (element.text, *element.attrib.values()):
            value = (value or "").strip()
            if value and len(value) < 4096 and "\0" not in value:
                yield value, element.tag in _SOURCES
