"""Whether reading a source asks other machines: by what its files name, before GDAL opens them.

GDAL has no switch for it: several of its drivers fetch what a file names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from rsir.sources.find import source
from rsir.sources.masks import SIDECARS
from rsir.sources.source import is_remote

# TIFF and BigTIFF, PNG, JPEG, JPEG 2000 (file and codestream), WebP: pixels, not names of files.
_RASTER = re.compile(
    rb"II[*+]\0|MM\0[*+]|\x89PNG|\xff\xd8\xff|\0\0\0\x0cjP  |\xff\x4f\xff\x51|RIFF....WEBP",
    re.DOTALL,
)
_VRT = b"<VRTDataset"  # GDAL takes for a VRT what has this somewhere near its start
_HEAD_BYTES = 1 << 16
# What an address has in it, also with its letters written as XML and JSON can.
_ADDRESS = re.compile(rb"(https?|ftp|s3|gs|az):|://|/vsi|&#|\\u|\\/", re.IGNORECASE)
_MOST_BYTES = 64 << 20  # our choice: a VRT of 10^5 files has some 50 MB


def references_remote(uri: str) -> bool:
    """Whether reading a source (`rsir.scenes.scene.Scene`) could ask another machine.

    True for a uri; a STAC item with a raster on another machine; a VRT that has an address in it,
    or a file of which does. What cannot be told apart from that counts: an address in metadata.

    Errors: DataError if there is no such file or item.
    """
    if "://" in uri:
        return True
    uris = [asset.uri for asset in source(uri).assets]
    return any(map(is_remote, uris)) or _has_address([Path(one) for one in uris])


def _has_address(files: list[Path]) -> bool:
    """Whether one of some local files, or of those that they name, names another machine."""
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
        except OSError:  # nor can GDAL read it
            continue
        waiting += [Path(f"{file}{suffix}") for suffix in SIDECARS]
        # GDAL's notes on a file: they can say where its overviews are, and else name no file.
        if file.suffix == ".xml" and b"OVERVIEW_FILE" not in text:
            continue
        if len(text) > _MOST_BYTES or _ADDRESS.search(text):
            return True
        if _VRT in text:
            try:
                said = list(_texts(ElementTree.fromstring(text)))
            except (ElementTree.ParseError, ValueError):
                return True  # GDAL is less strict
            waiting += [folder / name for name in said for folder in (file.parent, Path())]
    return False


def _texts(tree: ElementTree.Element) -> list[str]:
    """What stands in elements and attributes, if it could be the name of a file."""
    said = (text for one in tree.iter() for text in (one.text, *one.attrib.values()))
    return [text.strip() for text in said if text and text.strip() and len(text) < 4096]
