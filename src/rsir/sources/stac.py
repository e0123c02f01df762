"""Read scenes from STAC items, and from the catalogues and collections that link to items."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

from rsir.documents import MOST_BYTES, parse_object
from rsir.errors import DataError, ImageError, MissingExtraError
from rsir.sources.gate import check_inside, read_bytes
from rsir.sources.masks import BANDS
from rsir.sources.remote import file_system, http_get, is_web
from rsir.sources.source import (
    SCENE_SUFFIXES,
    Asset,
    NoStacError,
    Source,
    UnfitError,
    Units,
    Unusable,
    check_file,
    is_remote,
    normal,
    suffix_of,
)
from rsir.types import is_unicode

if TYPE_CHECKING:
    import pystac

STAC_PROPERTIES = (
    "stac_id", "collection", "platform", "constellation", "eo:cloud_cover", "start_datetime",
    "end_datetime",
)  # fmt: skip
"""The properties of a STAC item that its tiles get, if the item has them."""

# Roles of assets without imagery: STAC's best practices ('Asset Roles'), and variants of
# "cloud" that are in use. Below: the keys of such assets.
_NO_PIXELS = {"thumbnail", "overview", "metadata", "cloud", "cloud-mask", "cloud-shadow", "date"}
_NO_PIXELS |= {"data-mask", "land-water", "saturation", "snow-ice", "water-mask"}
_NO_PIXELS_KEYS = {"thumbnail", "preview", "overview", *BANDS}
# Types that are registered, and those that catalogues use.
_RASTER_TYPE = re.compile(
    r"(image|application)/(x-|vnd\.stac\.)?(geo)?tiff?(-fx)?|image/(jp2|jpx|jpeg2000|x-jp2)"
    r"|image/(png|jpeg|jpg|webp)"
)
_UNKNOWN_TYPES = ("", "application/octet-stream", "binary/octet-stream")
# Exceptions that pystac raises for invalid documents, in addition to its own.
_INVALID = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
_NOT_VALID = "not valid STAC"


def scenes_of(uri: str) -> Iterator[Source | Unusable]:
    """The items of a STAC document and of all documents it links to, depth first, each once.

    Errors: DataError if the document itself is not valid STAC; MissingExtraError without pystac.
    """
    try:
        import pystac
    except ImportError:
        stac_type(uri, load_json(uri))  # a document that is not STAC needs no pystac
        raise MissingExtraError("reading STAC", "geo") from None
    waiting, seen = [uri], set()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        try:
            document = load_json(here)
            kind = stac_type(here, document)
            if kind == "FeatureCollection":
                yield from _of_collection(here, document)
            elif kind == "Feature":
                yield _of_item(here, here, pystac.Item.from_dict(document, href=here))
            else:
                links = list(_links(here, document, ("child", "item")))
                yield from (link for link in links if isinstance(link, Unusable))
                waiting += [link for link in reversed(links) if isinstance(link, str)]
        except (DataError, *_INVALID, pystac.STACError, pystac.STACTypeError) as error:
            if here == uri:
                if isinstance(error, DataError):
                    raise
                raise UnfitError(f"{here}: {_NOT_VALID} ({error!r})") from error
            yield Unusable.of(here, error)


def stac_type(uri: str, document: Mapping[str, Any]) -> str:
    """The type of a STAC document. Errors: NoStacError if it is not STAC."""
    kind, features = document.get("type"), document.get("features")
    if kind not in ("Catalog", "Collection", "Feature", "FeatureCollection"):
        raise NoStacError(f"{uri}: not STAC: its type is {kind!r}")
    if kind == "Feature":
        features = [document]
    if isinstance(features, list) and features and not any(map(_could_be_item, features)):
        raise NoStacError(f"{uri}: not STAC, but GeoJSON of another kind")
    return str(kind)


def _could_be_item(feature: Any) -> bool:
    return isinstance(feature, dict) and ("stac_version" in feature or "assets" in feature)


def _links(
    here: str, document: Mapping[str, Any], kinds: Collection[str]
) -> Iterator[str | Unusable]:
    """The targets of the links with one of some `rel` in the document `here`."""
    links = document.get("links") or []
    for number, link in enumerate(links if isinstance(links, list) else [links]):
        rel, href = (link.get("rel"), link.get("href")) if isinstance(link, dict) else (None, None)
        if isinstance(link, dict) and rel not in kinds:
            continue
        if not isinstance(href, str) or not href:
            yield Unusable(here, f"its link {number} ({rel}) has no href; correct it")
            continue
        try:
            target = _resolved(here, href)
        except ValueError as error:
            yield Unusable(here, f"its link {number} ({rel}) is not valid ({error}); correct it")
            continue
        if _escapes(here, target):
            yield Unusable(target, f"{here} is on a server and names a file of this machine")
        else:
            yield target


def load_json(uri: str) -> dict[str, Any]:
    """The JSON object at a path or uri.

    Errors: NoStacError if it is no JSON object; DataError if it cannot be read.
    """
    check_file(uri)
    try:
        if not is_remote(uri):
            text = read_bytes(uri, MOST_BYTES)
        elif is_web(uri):
            text = http_get(uri)[0]
        else:
            system, path = file_system(uri)
            text = system.open_input_stream(path).read()
        # Some documents have NaN for unknown values, which is not JSON.
        return parse_object(text)
    except ImageError as error:
        raise NoStacError(f"{uri}: {error}") from error
    except OSError as error:
        raise DataError(f"{uri}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise NoStacError(f"{uri}: not JSON ({error}); is it a STAC document?") from error


def _resolved(here: str, href: str) -> str:
    """The target of a link in the document `here`, as a uri or an absolute path."""
    if "://" in href:
        return normal(href)
    if not is_remote(here):
        # Relative references should be percent-encoded, but some documents do not encode them.
        names = [normal(Path(here).parent / name) for name in dict.fromkeys((href, unquote(href)))]
        return next((name for name in names if os.path.exists(name)), names[0])  # noqa: PTH110 – never raises
    if is_web(here):
        return urljoin(here, href)
    # urljoin does not know object stores; in their names a '#' is an ordinary character.
    scheme, _, rest = here.replace("#", "\0").partition("://")
    joined = urljoin(f"http://{rest}", href.replace("#", "\0"))
    return f"{scheme}://{joined.removeprefix('http://')}".replace("\0", "#")


def _escapes(here: str, href: str) -> bool:
    """Whether a document on another machine links to a file of this one."""
    return is_remote(here) and not is_remote(href)


def _of_collection(uri: str, document: dict[str, Any]) -> Iterator[Source | Unusable]:
    import pystac

    for number, feature in enumerate(document.get("features", [])):
        try:
            item = pystac.Item.from_dict(feature, href=uri)
            yield _of_item(f"{uri}#{item.id}", uri, item)
        except (*_INVALID, pystac.STACError, pystac.STACTypeError) as error:
            name = feature.get("id", number) if isinstance(feature, dict) else number
            yield Unusable(f"{uri}#{name}", f"{_NOT_VALID} ({error!r})")
    if any(isinstance(link, str) for link in _links(uri, document, ("next",))):
        yield Unusable(uri, "has further pages (a link 'next'); only this one was read")


def _of_item(uri: str, here: str, item: pystac.Item) -> Source | Unusable:
    """The item called `uri` in the document `here`."""
    assets = []
    for key, asset in item.assets.items():
        href = _resolved(here, asset.href)
        if not _is_raster(href, asset.media_type):
            continue
        if _escapes(here, href):
            return Unusable(uri, f"asset '{key}' is on a server and names a file of this machine")
        if not is_remote(href):
            try:
                check_inside(here, href)
            except ImageError as error:
                return Unusable(uri, f"asset '{key}': {error}")
        roles = set(asset.roles or ())
        visual = "visual" in roles or key == "visual"
        pixels = not (roles & _NO_PIXELS) or visual
        pixels = pixels and key.lower() not in _NO_PIXELS_KEYS
        assets.append(Asset(href, key, _band_names(asset), visual, pixels, _units(asset)))
    if not any(asset.pixels for asset in assets):
        return Unusable(uri, "has no asset with imagery (GeoTIFF, JPEG 2000, PNG, JPEG, WebP)")
    acquired = item.datetime or item.common_metadata.start_datetime
    if acquired is not None and acquired.tzinfo is None:
        acquired = acquired.replace(tzinfo=UTC)
    known = item.properties | {"stac_id": item.id, "collection": item.collection_id}
    values = {name: known.get(name) for name in STAC_PROPERTIES}
    properties = {k: value for k, value in values.items() if isinstance(value, str | int | float)}
    if not is_unicode(json.dumps(properties, ensure_ascii=False)):
        return Unusable(uri, "has text that is not valid Unicode; correct the item")
    return Source(uri, tuple(assets), acquired, properties)


def _is_raster(href: str, media_type: str | None) -> bool:
    kind = (media_type or "").partition(";")[0].strip().lower()
    if _RASTER_TYPE.fullmatch(kind):
        return True
    # Servers that do not know the type of a file give it this one.
    return kind in _UNKNOWN_TYPES and suffix_of(href) in SCENE_SUFFIXES


def _units(asset: pystac.Asset) -> tuple[Units | None, ...]:
    """Scale and offset of each band: of STAC 1.1 `bands`, of `raster:bands`, or of the asset."""
    fields = asset.extra_fields
    bands = fields.get("raster:bands") or fields.get("bands") or fields.get("eo:bands")
    found = []
    for band in bands if isinstance(bands, list) else [{}]:
        if not isinstance(band, dict):
            band = {}
        stated = [
            next((part[key] for part, key in (
                (band, name), (band, f"raster:{name}"), (fields, f"raster:{name}")
            ) if key in part), usual)
            for name, usual in (("scale", 1), ("offset", 0))
        ]  # fmt: skip
        scale, offset = map(_number, stated)
        units = None if not scale or offset is None else (scale, offset)
        found.append(None if units == (1, 0) else units)
    return tuple(found) if any(found) else ()


def _number(value: object) -> float | None:
    """A finite number as float; None for anything else."""
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _band_names(asset: pystac.Asset) -> tuple[tuple[str, ...], ...]:
    """STAC 1.1 `bands`, or `eo:bands` of 1.0: the common name first, then the producer's."""
    bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    return tuple(
        tuple(
            str(band[name]) for name in ("eo:common_name", "common_name", "name") if band.get(name)
        )
        for band in bands
    )
