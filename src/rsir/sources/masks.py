"""Recognise masks and sidecar files of scenes by their names.

A raster is a mask only if its scene was found too; without that scene, any raster is a scene.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from rsir.sources.gate import from_header

SIDECARS = (".ovr", ".msk", ".aux.xml")
"""Suffixes that GDAL appends to the name of a file for its overviews, its mask and its metadata
(GDAL, 'GTiff -- GeoTIFF File Format' and 'Raster Data Model')."""

_WORDS = ("cloud", "clouds", "cloud_mask", "cloudmask", "mask", "quality", "qa")
"""`SCENE_WORD` is a mask of `SCENE`. Our choice."""

BANDS = (
    "scl", "qa_pixel", "qa_radsat", "sr_qa_aerosol", "sr_cloud_qa", "st_qa", "pixel_qa",
    "radsat_qa", "bqa", "qa60", "fmask", "udm", "dn_udm", "udm2", "cloud_mask", "cloudmask",
)  # fmt: skip
"""`PRODUCT_BAND`, or `BAND` alone, is a mask of the other bands of `PRODUCT`: Sentinel-2 Level-2A
(ESA); Landsat Collections 1 and 2 (USGS); Sentinel-2 in Earth Engine; HLS (NASA); PlanetScope."""

_BETWEEN = "._-"
_SUFFIX, _HERE, _BELOW = re.compile(r"[^/.]*"), re.compile("[^/]*"), re.compile(".*")
_ENDS = {word: tuple(mark + word for mark in _BETWEEN) for word in (*_WORDS, *BANDS)}
_ANY_END = tuple(_ENDS)
_RESOLUTION = re.compile(r"_\d+m$")  # of Sentinel-2: _SCL_20m


def sidecars(uris: Collection[str]) -> dict[str, str]:
    """The sidecar files among `uris`, each with its suffix."""
    return {
        uri: suffix
        for uri in uris
        for suffix in SIDECARS
        if uri.endswith(suffix) and uri.removesuffix(suffix) in uris
    }


def masks_by_name(uris: Iterable[str]) -> dict[str, str]:
    """The masks among files, each with the file that it is a mask of.

    Names decide (see `_WORDS` and `BANDS`; case does not matter); for Sentinel-2's QI_DATA/MSK_*
    the folder decides. A file without a scene beside it is not a mask.
    """
    uris = sorted(uris)
    candidates = {uri: names for uri in uris if (names := list(_owners(uri)))}
    scenes = [uri for uri in uris if uri not in candidates]
    masks: dict[str, str] = {}
    for uri, names in candidates.items():
        # A candidate may itself have a mask, whose name is the candidate's whole name and a word.
        found = (_first(uris if rest is _SUFFIX else scenes, start, rest) for start, rest in names)
        owner = next(filter(None, found), None)
        if owner is not None:
            masks[uri] = owner
    return masks


def has_one_band(uri: str) -> bool:
    """Whether a local raster may be a mask: it has one band, or Pillow does not know its bands."""
    return from_header(uri, lambda image: len(image.getbands()) == 1, True)


def beside(uri: str, template: str) -> str:
    """The path of a raster beside a scene, from a template with {folder} and {stem}."""
    folder, _, name = uri.rpartition("/")
    return template.replace("{folder}", folder).replace("{stem}", PurePosixPath(name).stem)


def _owners(uri: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Possible scenes of a mask: how the name of the scene begins, and a pattern for the rest."""
    folder, slash, name = uri.rpartition("/")
    if name.startswith("MSK_") and folder.endswith("/QI_DATA"):
        yield folder.removesuffix("QI_DATA"), _BELOW
        return
    stem = name.rpartition(".")[0] or name
    band = stem.lower()
    if band.endswith("m"):
        band = _RESOLUTION.sub("", band)
    if not band.endswith(_ANY_END):  # nearly all files; there may be millions
        return
    for word in _WORDS:
        if stem.lower().endswith(_ENDS[word]):
            yield f"{folder}{slash}{stem[: -len(word) - 1]}.", _SUFFIX
    for word in BANDS:
        if band == word:
            yield folder + slash, _HERE
        elif band.endswith(_ENDS[word]):
            for mark in _BETWEEN:
                yield f"{folder}{slash}{stem[: len(band) - len(word) - 1]}{mark}", _HERE


def _first(uris: Sequence[str], start: str, rest: re.Pattern[str]) -> str | None:
    """The first of the sorted uris that begins with `start` and whose rest matches; or None."""
    for i in range(bisect_left(uris, start), len(uris)):
        if not uris[i].startswith(start):
            return None
        if rest.fullmatch(uris[i], len(start)):
            return uris[i]
    return None
