"""The variables of a NetCDF or HDF5 file, for the message that refuses it."""

from __future__ import annotations

import subprocess
import sys

from rsir.errors import ImageError
from rsir.sources.source import SCENE_SUFFIXES, suffix_of

_SECONDS = 20
_MOST = 20
# In a process of its own: a damaged file may end it, and such a file may name other files.
_LIST = """
import sys, rasterio
with rasterio.open(sys.argv[1], driver=sys.argv[2]) as dataset:
    print("\\n".join(dataset.subdatasets))
"""


def refuse_variables(uri: str, head: bytes) -> None:
    """Refuse a NetCDF or HDF5 file with an ImageError that names its variables.

    uri: the path of a local file. head: its first bytes; nothing happens for other formats, and
    for a file with the suffix of a scene: a folder may hold thousands of those, and listing the
    variables of one takes seconds.
    """
    if not head.startswith((b"\x89HDF", b"CDF")) or suffix_of(uri) in SCENE_SUFFIXES:
        return
    names: list[str] = []
    for driver in ("netCDF", "HDF5"):
        names = names or _names(uri, driver)
    listed = ", ".join(names[:_MOST]) + (", …" if len(names) > _MOST else "")
    raise ImageError(
        "this is a NetCDF or HDF5 file, which may hold several images and name other files"
        + (f" ({listed})" if listed else "")
        + "; write the one that you mean as a GeoTIFF: gdal_translate "
        + (names[0] if names else f'NETCDF:"{uri}":VARIABLE')
        + " OUT.tif"
    )


def _names(uri: str, driver: str) -> list[str]:
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _LIST, uri, driver],
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return []
    return [line for line in done.stdout.splitlines() if line] if done.returncode == 0 else []
