"""Whether reading a source would follow names of other files or machines."""

from __future__ import annotations

from rsir.errors import ImageError
from rsir.sources.find import source
from rsir.sources.gate import format_of, read_head
from rsir.sources.source import is_remote


def is_list_of_files(uri: str) -> bool:
    """Whether a local source is a VRT, which lists other files.

    Errors: DataError if there is no such file or item.
    """
    if is_remote(uri):
        return False
    try:
        return any(format_of(read_head(asset.uri)[0]) == "VRT" for asset in source(uri).assets)
    except ImageError:  # no file of a known format, so nothing will read it
        return False


def is_elsewhere(uri: str) -> bool:
    """Whether reading a source (`rsir.scenes.scene.Scene`) contacts another machine.

    True for a uri, and for a STAC item with a raster on another machine.

    Errors: DataError if there is no such file or item.
    """
    return "://" in uri or any(is_remote(asset.uri) for asset in source(uri).assets)
