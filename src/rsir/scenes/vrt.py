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
from rsir.sources.gate import absolute, check_inside, read_bytes

_MOST_BYTES = 64 << 20  # our choice: a VRT of 10^5 files has some 50 MB
_MOST_DEPTH = 64  # our choice: GDAL's own VRTs have a dozen levels
_MOST_VRTS = 4  # our choice: VRTs that name VRTs
_ADDRESS = re.compile(r"://|/vsi|^\s*[<{]", re.IGNORECASE)
_PREFIX = re.compile(r"(?!EPSG:)[A-Z]\w+:", re.IGNORECASE)  # "HDF5:…", "GTIFF_DIR:…"
_RAW = "vrtrawrasterband"
# GDAL compares names of elements and attributes without case. Texts of these are prose to it; an
# entry of metadata (MDI) is prose unless its key says otherwise.
_PROSE = frozenset({"description", "srs", "category", "unittype", "projection"})
_NAMING = re.compile(r"file|dataset|dem|path|url", re.IGNORECASE)


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
        for name in _names(text):
            if _ADDRESS.search(name) or _PREFIX.match(name):
                raise ImageError(f"it names {name[:200]!r}; a VRT may only name files beside it")
            # GDAL resolves names relative to the VRT or to the current folder.
            for file in {absolute(vrt.parent / name), absolute(name)}:
                if os.path.lexists(file) and not file.is_dir():
                    check_inside(vrt, str(file))
                    found[file] = None
    except ElementTree.ParseError as error:
        raise ImageError(f"is not a valid VRT ({error})") from error
    return list(found)


def _names(text: bytes) -> Iterator[str]:
    """The texts and the values of attributes that GDAL may take for names of files."""
    depth = 0
    for event, element in ElementTree.iterparse(io.BytesIO(text), ("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > _MOST_DEPTH:
            raise ImageError("a VRT that is nested too deeply")
        values = list(element.attrib.values())
        if _RAW in map(str.lower, values):
            raise ImageError("a VRT that reads raw bytes; convert it: gdal_translate")
        if event == "start":
            continue
        tag = element.tag.lower()
        keys = [value for name, value in element.items() if name.lower() in ("key", "name")]
        if tag in _PROSE or (tag == "mdi" and not any(map(_NAMING.search, keys))):
            continue
        # Texts may also follow a child. A value such as "Byte" or "1" is no name of a file.
        texts = [element.text, *(child.tail for child in element)]
        yield from (value for value in map(_stripped, texts) if value)
        yield from (value for value in map(_stripped, values) if re.search(r"[./\\:]", value))


def _stripped(text: str | None) -> str:
    """A text that may be a name: without white space around it, "" for one that is too long."""
    text = (text or "").strip()
    return text if len(text) < 4096 and "\0" not in text else ""
