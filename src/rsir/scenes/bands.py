"""Choose the bands of a scene and the files that hold them; a band may have several names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsir.errors import UsageError
from rsir.sources.source import Asset, Source

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

RGB = ("red", "green", "blue")


@dataclass(frozen=True, slots=True)
class Band:
    """One band of one file of a scene.

    file: index of the file in the scene. index: of the band in the file, from 1. names: all names
    of the band in lower case, each with its priority; 0 is the highest. common: the first name that
    STAC gives it. component: of a palette's colours, 0 to 2; the samples are in the first band.
    """

    file: int
    index: int
    names: tuple[tuple[str, int], ...]
    common: str | None
    component: int | None = None

    @property
    def stored(self) -> int:
        """The number of the band with its samples in the file, from 1."""
        return self.index if self.component is None else 1

    def priority(self, name: str) -> int | None:
        """The priority of a name; None if the band does not have it."""
        return min((priority for own, priority in self.names if own == name), default=None)


def assets_of(source: Source, bands: Sequence[str] | None) -> list[Asset]:
    """The files that hold the requested bands, according to the source's STAC item.

    Errors: UsageError if no file holds one of the bands.
    """
    candidates = [asset for asset in source.assets if asset.pixels]
    if len(source.assets) == 1:
        return list(source.assets)
    refs = [_split(band)[1] for band in (bands or RGB)]
    for asset in sorted(candidates, key=lambda asset: not asset.visual):
        if all(_holds(asset, ref) for ref in refs):
            return [asset]
    if bands is None and len(candidates) == 1:
        return candidates
    chosen: list[Asset] = []
    for ref in refs:
        # A mask is read only if it is requested by name.
        holders = [a for a in (*candidates, *source.assets) if _holds(a, ref)]
        if not holders:
            known = [a.key + (f" ({_band_list(a)})" if a.bands else "") for a in candidates]
            raise UsageError(f"{source.uri}: no band '{ref}'; its assets are {', '.join(known)}")
        if holders[0] not in chosen:
            chosen.append(holders[0])
    return chosen


def _band_list(asset: Asset) -> str:
    return ", ".join(names[0] for names in asset.bands if names)


def _holds(asset: Asset, ref: str) -> bool:
    key, colon, _ = ref.rpartition(":")
    if colon:
        return asset.key.lower() == key
    names = {name.lower() for band in asset.bands for name in band}
    return ref in names or (asset.key.lower() == ref and len(asset.bands) <= 1)


def _split(band: str) -> tuple[str | None, str]:
    """The name and the band of "red=B04", ("red", "b04"); of "B04", (None, "b04")."""
    name, equals, ref = band.rpartition("=")
    return (name.strip() if equals else None), ref.strip().lower()


def bands_of(file: int, dataset: DatasetReader, asset: Asset) -> list[Band]:
    """The bands of a file except alpha, with all their names; `file` is its index in the scene."""
    colours = [colour.name.lower() for colour in dataset.colorinterp]
    if colours == ["palette"]:
        return [
            Band(file, part + 1, ((name, 3), (str(part + 1), 4)), None, part)
            for part, name in enumerate(RGB)
        ]
    indexes = [i for i, colour in zip(dataset.indexes, colours, strict=True) if colour != "alpha"]
    stac = asset.bands if len(asset.bands) == len(indexes) else ((),) * len(indexes)
    found = []
    for index, stac_names in zip(indexes, stac, strict=True):
        names = [(name.lower(), 0) for name in stac_names]
        if asset.key and len(indexes) == 1:
            names.append((asset.key.lower(), 1))
        if dataset.descriptions[index - 1]:
            names.append((dataset.descriptions[index - 1].strip().lower(), 2))
        if colours[index - 1] not in ("undefined", "gray"):
            names.append((colours[index - 1], 3))
        names.append((str(index), 4))
        if asset.key:
            names += [(f"{asset.key.lower()}:{name}", priority) for name, priority in names]
        common = stac_names[0].lower() if stac_names else None
        found.append(Band(file, index, tuple(names), common))
    return found


def choose(
    uri: str, available: Sequence[Band], requested: Sequence[str] | None
) -> tuple[list[Band], list[str]]:
    """The requested bands of the open files, and their names in the scene.

    requested: as `rsir.scenes.scene.Scene.open` takes them. uri: names the scene in messages.

    Errors: UsageError for a band that is missing, is ambiguous, or is named twice.
    """
    if requested is None:
        if len(available) == 1:
            return [available[0]] * 3, list(RGB)
        requested = RGB
    elif not requested:
        raise UsageError("no bands are named; leave them out for red, green and blue")
    bands, names = [], []
    for text in requested:
        given, ref = _split(text)
        ranked = [(rank, band) for band in available if (rank := band.priority(ref)) is not None]
        best = [band for rank, band in ranked if rank == min(rank for rank, _ in ranked)]
        if len(best) != 1:
            known = ", ".join(_name(band) for band in available)
            problem = f"'{ref}' is more than one band" if best else f"no band '{ref}'"
            raise UsageError(
                f"{uri}: {problem}; it has {known}; name bands by these or by number, 'red=3' to "
                "say which one is red"
            )
        bands.append(best[0])
        names.append(given or best[0].common or (_name(best[0]) if ref.isdigit() else ref))
    if len(set(names)) != len(names):
        raise UsageError(f"bands {', '.join(requested)}: two have the same name")
    return bands, names


def _name(band: Band) -> str:
    return min(band.names, key=lambda named: named[1])[0]
