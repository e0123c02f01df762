"""Tell whether reading a source would contact other machines, before GDAL opens its files.

GDAL has no option to forbid this: several of its drivers fetch the addresses that a file contains.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from rsir.sources.find import source
from rsir.sources.masks import SIDECARS
from rsir.sources.source import is_remote

# TIFF and BigTIFF, PNG, JPEG, JPEG 2000 (file and codestream), WebP: these name no other files.
_RASTER = re.compile(
    rb"II[*+]\0|MM\0[*+]|\x89PNG|\xff\xd8\xff|\0\0\0\x0cjP  |\xff\x4f\xff\x51|RIFF....WEBP",
    re.DOTALL,
)
_VRT = b"<VRTDataset"  # GDAL takes any file with this near its start for a VRT
_HEAD_BYTES = 1 << 16
# Every address contains one of these, even if it is escaped as in XML or JSON.
_ADDRESS = re.compile(rb"(https?|ftp|s3|gs|az):|://|/vsi|&#|\\u|\\/", re.IGNORECASE)
_MOST_BYTES = 64 << 20  # our choice: a VRT of 10^5 files has some 50 MB


def references_remote(uri: str) -> bool:
    """Whether reading a source (`rsir.scenes.scene.Scene`) could contact another machine.

    True for a uri, for a STAC item with a raster on another machine, and for a VRT if it or one of
    its files contains an address, even in metadata: such addresses look like all others.

    Errors: DataError if there is no such file or item.
    """
    if "://" in uri:
        return True
    uris = [asset.uri for asset in source(uri).assets]
    return any(map(is_remote, uris)) or _has_address([Path(uri) for uri in uris])


def _has_address(files: list[Path]) -> bool:
    """Whether local files, or the files that they name, contain an address."""
    waiting, seen = files, set[Path]()
    while waiting:
        file = waiting.pop()
        if file in seen or not os.path.isfile(file):  # noqa: PTH113 – never raises
            continue
        seen.add(file)
        try:
            with file.open("rb") as stream:
                head = stream.read(_HEAD_BYTES)
                raster = _RASTER.match(head) and _VRT not in head
                text = b"" if raster else head + stream.read(_MOST_BYTES)
        except OSError:  # GDAL cannot read it either
            continue
        waiting += [Path(f"{file}{suffix}") for suffix in SIDECARS]
        # An .aux.xml names no file, except that of the overviews.
        if file.suffix == ".xml" and b"OVERVIEW_FILE" not in text:
            continue
        if len(text) > _MOST_BYTES or _ADDRESS.search(text):
            return True
        if _VRT in text:
            try:
                names = list(_texts(ElementTree.fromstring(text)))
            except (ElementTree.ParseError, ValueError):
                return True  # GDAL may read it nevertheless
            waiting += [folder / name for name in names for folder in (file.parent, Path())]
    return False


def _texts(tree: ElementTree.Element) -> list[str]:
    """The texts of elements and attributes that could be names of files."""
    texts = (text for node in tree.iter() for text in (node.text, *node.attrib.values()))
    return [text.strip() for text in texts if text and text.strip() and len(text) < 4096]
