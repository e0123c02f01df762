"""Recognise the folders in which agencies deliver a scene as a file for each band."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_LANDSAT = re.compile(r"(L[COTEM]0\d_.+?)_MTL\.(txt|json|xml)", re.IGNORECASE)
_SENTINEL = re.compile(r"S2.*\.SAFE", re.IGNORECASE)


def products(files: Iterable[Path]) -> dict[Path, tuple[Path, str]]:
    """The files of products among `files`, each with its product and how to make a scene of that.

    Sentinel-2: all files below a folder S2*.SAFE, which is the product. Landsat Collection 2: all
    files PRODUCT_* beside PRODUCT_MTL.txt, .json or .xml; the latter is the product.
    """
    files = list(files)
    landsat: defaultdict[Path, dict[str, Path]] = defaultdict(dict)
    for file in files:
        if found := _LANDSAT.fullmatch(file.name):
            landsat[file.parent][f"{found[1].lower()}_"] = file
    products: dict[Path, tuple[Path, str]] = {}
    for file in files:
        safe = next((part for part in file.parents if _SENTINEL.fullmatch(part.name)), None)
        if safe is not None:
            products[file] = safe, _advice("Sentinel-2", "sentinel2", f"{safe} ITEMS", safe)
            continue
        for start, metadata in landsat.get(file.parent, {}).items():
            if file.name.lower().startswith(start):
                arguments = f"--mtl {metadata} --output ITEMS"
                reason = _advice("Landsat", "landsat", arguments, file.parent)
                products[file] = metadata, reason
    return products


def _advice(mission: str, package: str, arguments: str, folder: Path) -> str:
    return (
        f"is a {mission} product with a file for each band; make one scene of it, a STAC item, and "
        f"index that: pip install stactools-{package}; stac {package} create-item {arguments}; "
        f"RSIR_FOLDERS={folder} rsir index ARCHIVE ITEMS"
    )
