"""The ten benchmark sets of the papers: what is in them, where they are had, how they are checked.

Every fact is from the set's paper or from the source that the entry's `sources` names; what could
not be verified is None or "not stated", never a guess. Class names are spelled in one way for all
sets, lower case with spaces; `find_class` knows the folder names that archives really use.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import shutil
import tarfile
import tempfile
import unicodedata
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO, Literal
from urllib.parse import urlsplit

from rsir.data import folder
from rsir.data.folder import SHOWN, some
from rsir.data.splits import hash_files
from rsir.errors import DataError, ImageError, MissingExtraError, UsageError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come so far and the bytes in all, if the server says."""

DEPTH = 4
"""Folder levels that `locate` looks below the data root; our choice, one more than any layout."""

DECODE_THREADS = 8
_CHUNK = 1 << 20
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Citation:
    """A paper. doi is None where it could not be verified."""

    authors: str
    title: str
    venue: str
    year: int
    doi: str | None


@dataclass(frozen=True)
class Archive:
    """One file to download and unpack. size in bytes and sha256 in hex are None where unknown."""

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """One benchmark set.

    classes: (L,) canonical names of the classes or labels; empty if the list is not verified.
    images: how many the set has in all. counts: images of each class folder; empty if not known.
    size: (height, width) of the images in pixels, as published.
    gsd: ground sampling distance, (finest, coarsest) in metres, or None if not stated.
    labels: "single" or "multi". folders: the class folders that the images lie in, where those are
        not the labels; empty if the images lie in one folder.
    torchgeo: the dataset class in `torchgeo.datasets` that downloads it, or None.
    archive: where it is downloaded from otherwise, or None if it must be had by hand.
    layouts: folders, relative to a data root, that hold the class folders (or, without class
        folders, the images) when the set is unpacked in the ways met so far.
    aliases: other names that archives use for a class.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    class_count: int
    images: int
    size: tuple[int, int]
    labels: Literal["single", "multi"]
    citation: Citation
    home: str
    licence: str
    sources: str
    layouts: tuple[str, ...]
    gsd: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] | None = None
    torchgeo: str | None = None
    archive: Archive | None = None
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: str = ""

    @property
    def class_folders(self) -> tuple[str, ...]:
        """The canonical names of the folders that the images lie in; empty if none or unknown."""
        return self.classes if self.folders is None else self.folders


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. Duplicates and sizes are worth knowing; they do not make a set bad.

    counts: images of each class folder found, under its canonical name if it has one.
    missing: classes without an image. extra: folders that are no class of the set.
    wrong: (class, found, expected), or ("class folders", …) of a set whose names are not known.
    total: (found, expected), where they differ.
    corrupt: (path, what is wrong). sizes: images of each (height, width), if decoded.
    duplicates: groups of files with the same bytes. Paths are relative to `root`.
    """

    name: str
    root: Path
    counts: Mapping[str, int]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    wrong: tuple[tuple[str, int, int], ...]
    total: tuple[int, int] | None
    corrupt: tuple[tuple[str, str], ...]
    size: tuple[int, int]
    sizes: Mapping[tuple[int, int], int]
    duplicates: tuple[tuple[str, ...], ...]
    decoded: bool

    @property
    def ok(self) -> bool:
        """Whether every class is there with the right number of images, all of them readable."""
        return not (self.missing or self.extra or self.wrong or self.total or self.corrupt)

    @property
    def lines(self) -> list[str]:
        """The report to print, the verdict first."""
        found = sum(self.counts.values())
        lines = [
            f"{self.name}: {'ok' if self.ok else 'not as published'} — "
            f"{found} images in {len(self.counts)} folder{'s' if len(self.counts) != 1 else ''}, "
            f"{'all decoded' if self.decoded else 'not decoded'}: {self.root}"
        ]
        if self.missing:
            lines.append(f"missing: {some(self.missing, 'class', 'es')}")
        if self.extra:
            lines.append(f"not of this set: {some(self.extra, 'folder')}")
        lines += [f"{name}: {n}, {expected} expected" for name, n, expected in self.wrong]
        if self.total:
            lines.append(f"in all: {self.total[0]} images, {self.total[1]} expected")
        lines += [f"corrupt: {path}: {what}" for path, what in self.corrupt[:SHOWN]]
        if len(self.corrupt) > SHOWN:
            lines.append(f"corrupt: … {len(self.corrupt)} in all")
        other = {size: n for size, n in self.sizes.items() if size != self.size}
        if other:
            sizes = ", ".join(f"{n} of {h}×{w}" for (h, w), n in sorted(other.items()))
            lines.append(f"note: published at {self.size[0]}×{self.size[1]}, found {sizes}")
        lines += [f"note: same content: {' = '.join(g)}" for g in self.duplicates[:SHOWN]]
        if len(self.duplicates) > SHOWN:
            lines.append(f"note: same content: … {len(self.duplicates)} groups in all")
        return lines


def get(name: str) -> Entry:
    """The entry of that name; case, spaces and punctuation do not matter.

    Raises UsageError listing the names.
    """
    for entry in ENTRIES.values():
        if _key(name) in {_key(entry.name), _key(entry.title)}:
            return entry
    raise UsageError(f"no benchmark set {name!r}; there are {', '.join(ENTRIES)}")


def find_class(entry: Entry, name: str) -> str | None:
    """The canonical name of a class, label or class folder, however it is spelled; else None.

    "DenseResidential", "dense_residential" and "Dense Residential" are "dense residential".
    """
    return _spellings(entry).get(_key(name))


def locate(entry: Entry, root: str | Path) -> Path:
    """The folder below a data root that holds the set's class folders, or its images.

    In any of `entry.layouts`, or wherever most of the classes lie, four levels deep at most.
    `root` may be a folder with many sets. Raises DataError if the set is not there, naming the
    layouts, or if it is there more than once.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that the data sets lie in")
    found = _find(entry, root)
    if not found:
        raise DataError(
            f"{root}: {entry.title} is not below this folder; expected its images in one of "
            f"{', '.join(entry.layouts)}. {_by_hand(entry)}"
        )
    if len(found) > 1:
        raise DataError(
            f"{root}: {entry.title} could be {some([str(p) for p in found], 'folder')}; name one"
        )
    return found[0]


def check(entry: Entry, root: str | Path, *, decode: bool = True) -> CheckReport:
    """Compares the set below `root` with what was published.

    decode: read every image too, which takes a while; without it, corrupt files and sizes are
    not found. Raises DataError as `locate` does.
    """
    base = locate(entry, root)
    listing = folder.scan(base)
    flat = entry.folders == ()
    counts: Counter[str] = Counter()
    extra: set[str] = set()
    for name in {f.split("/", 1)[0] for f in listing.folders}:
        known = _folder_class(entry, name)
        if known is None and (entry.class_folders or flat):
            extra.add(name)
        else:
            counts[known or name] += 0
    images = []
    for path in listing.images:
        name = path.split("/", 1)[0] if "/" in path else ""
        if name in extra or (not name and not flat):
            continue
        counts[(_folder_class(entry, name) or name) if name else "images"] += 1
        images.append(path)
    missing = tuple(c for c in entry.class_folders if counts[c] == 0)
    wrong = tuple(
        (c, counts[c], entry.counts[c])
        for c in entry.class_folders
        if c in entry.counts and counts[c] and counts[c] != entry.counts[c]
    )
    if not entry.classes and len(counts) != entry.class_count:
        wrong = (("class folders", len(counts), entry.class_count),)
    total = None if len(images) == entry.images else (len(images), entry.images)

    corrupt, sizes = _decode(base, images) if decode else ([], Counter[tuple[int, int]]())
    by_content: dict[str, list[str]] = defaultdict(list)
    for path, digest in zip(images, hash_files([base / p for p in images]), strict=True):
        by_content[digest].append(path)
    return CheckReport(
        name=entry.name,
        root=base,
        counts={name: n for name, n in sorted(counts.items()) if n},
        missing=missing,
        extra=tuple(sorted(extra)),
        wrong=wrong,
        total=total,
        corrupt=tuple(corrupt),
        size=entry.size,
        sizes=dict(sizes),
        duplicates=tuple(tuple(group) for group in by_content.values() if len(group) > 1),
        decoded=decode,
    )


def fetch(entry: Entry, root: str | Path, *, progress: Progress | None = None) -> Path:
    """The set's folder below `root`, downloaded if it is not there yet.

    Through torchgeo where it has the set (which shows its own progress), else from a known
    address. Raises MissingExtraError without torchgeo; DataError where the set cannot be
    downloaded, saying where to get it by hand and how to lay it out, and where a download or its
    checksum fails.
    """
    root = Path(root)
    if root.is_dir() and _find(entry, root):
        return locate(entry, root)
    if entry.torchgeo is None and entry.archive is None:
        raise DataError(f"{entry.title} cannot be downloaded. {_by_hand(entry)}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be made ({error.strerror})") from error
    if entry.torchgeo is not None:
        _fetch_torchgeo(entry, entry.torchgeo, root)
    elif entry.archive is not None:
        _fetch_archive(entry, entry.archive, root, progress)
    return locate(entry, root)


def download(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes what is at `url` to `path`: all of it, checked, or nothing.

    Only https, or http to this machine itself, redirections included. size in bytes and sha256 in
    hex are compared if given. Raises UsageError for other addresses, DataError if it fails.
    """
    path = Path(path)
    _check_url(url)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    got = 0
    opener = urllib.request.build_opener(_OnlySafeRedirects)
    try:
        with opener.open(url, timeout=_TIMEOUT) as answer, draft.open("wb") as file:
            length = answer.headers.get("Content-Length", "")
            expected = int(length) if length.isdecimal() else size
            while chunk := answer.read(_CHUNK):
                got += len(chunk)
                if size is not None and got > size:
                    break
                digest.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(got, expected)
        if expected is not None and got != expected:
            raise DataError(f"{url}: {got} bytes came, not {expected}; try again")
        if size is not None and got != size:
            raise DataError(f"{url}: {got} bytes came, not {size}; the file there has changed")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise DataError(
                f"{url}: the SHA-256 is {digest.hexdigest()}, not {sha256}; the file there has "
                "changed, or was damaged on its way"
            )
        draft.replace(path)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise DataError(f"{url}: cannot be downloaded ({error})") from error
    finally:
        draft.unlink(missing_ok=True)


def extract(archive: str | Path, target: str | Path) -> None:
    """Unpacks a zip or tar file into a new folder.

    Raises DataError, leaving nothing behind, for members that would lie outside of it, for links
    in zip files, and for damaged or other files.
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        raise DataError(f"{target} exists; an archive is unpacked into a new folder only")
    try:
        target.mkdir(parents=True)
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for member in packed.infolist():
                    _check_member(archive, member)
                packed.extractall(target)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(target, filter="data")
        else:
            raise DataError(f"{archive}: neither a zip nor a tar file; unpack it by hand")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(f"{archive}: cannot be unpacked ({error})") from error
    except (RuntimeError, NotImplementedError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise DataError(f"{archive}: encrypted or packed in an unknown way ({error})") from error
    except DataError:
        shutil.rmtree(target, ignore_errors=True)
        raise


class _OnlySafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to where `download` itself would go."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _check_url(newurl)
        except UsageError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise UsageError(f"{url}: only https addresses are downloaded from")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename.replace("\\", "/")
    pure = PurePosixPath(name)
    unix_mode = member.external_attr >> 16
    is_link = unix_mode & 0o170000 == 0o120000
    if pure.is_absolute() or ".." in pure.parts or re.match("[A-Za-z]:", name) or is_link:
        raise DataError(f"{archive}: the member {member.filename!r} leads out of the archive")


def _fetch_torchgeo(entry: Entry, name: str, root: Path) -> None:
    try:
        import torchgeo.datasets
    except ImportError as error:
        raise MissingExtraError(f"downloading {entry.title}", "datasets") from error
    dataset = getattr(torchgeo.datasets, name)
    try:
        dataset(root=root, download=True, checksum=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(
            f"{entry.title}: torchgeo could not download it ({error}). {_by_hand(entry)}"
        ) from error


def _fetch_archive(entry: Entry, archive: Archive, root: Path, progress: Progress | None) -> None:
    target = root / entry.name
    if target.exists():
        raise DataError(f"{target} exists but is not {entry.title}; move it away first")
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}-", dir=root) as scratch:
        packed = Path(scratch) / archive.filename
        download(archive.url, packed, size=archive.size, sha256=archive.sha256, progress=progress)
        unpacked = Path(scratch) / "unpacked"
        extract(packed, unpacked)
        unpacked.replace(target)


def _by_hand(entry: Entry) -> str:
    layout = entry.layouts[0]
    if entry.class_folders or not entry.classes:
        layout += "/<class>/<image>"
    else:
        layout += "/<image>"
    return f"Get it from {entry.home} and lay it out as {layout} below the data root"


def _folders(root: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """`root` and the folders below it that are not hidden, with their levels."""
    level = [root]
    for n in range(depth + 1):
        below = []
        for path in level:
            yield path, n
            if n < depth:
                below += sorted(_subfolders(path).values())
        level = below


def _subfolders(path: Path) -> dict[str, Path]:
    try:
        with os.scandir(path) as entries:
            return {
                entry.name: path / entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.name != "__MACOSX" and entry.is_dir()
            }
    except PermissionError:
        return {}


def _find(entry: Entry, root: Path) -> list[Path]:
    """The folders below `root` that look most like the set's; more than one if they tie."""
    ranked = [
        ((*rank, -level), path)
        for path, level in _folders(root, DEPTH)
        if (rank := _rank(entry, path)) is not None
    ]
    top = max((rank for rank, _ in ranked), default=None)
    return sorted(path for rank, path in ranked if rank == top)


def _rank(entry: Entry, path: Path) -> tuple[float, int] | None:
    """How well a folder looks like the set's, larger is better; None if it does not.

    A folder of another name must hold half of the classes and not look more like another set:
    17 of the 19 classes of WHU-RS19 are in AID too.
    """
    named = _layout_rank(entry, path)
    names = tuple(_subfolders(path))
    if entry.class_folders:
        overlap = _overlap(entry, names)
        if not overlap:
            return None
        rivals = (_overlap(other, names) for other in ENTRIES.values())
        if not named and (overlap < 0.5 or overlap < max(rivals)):
            return None
        return overlap, named
    if not named:
        return None
    if entry.folders is None:
        return (1.0, named) if 2 * len(names) >= entry.class_count else None
    from rsir.data.images import SUFFIXES

    with os.scandir(path) as entries:
        has_image = any(PurePosixPath(e.name).suffix.lower() in SUFFIXES for e in entries)
    return (1.0, named) if has_image else None


def _overlap(entry: Entry, names: tuple[str, ...]) -> float:
    """Classes that both have, as a share of those that either has: 0 … 1."""
    known = {c for c in (_folder_class(entry, name) for name in names) if c is not None}
    either = len(names) + len(entry.class_folders) - len(known)
    return len(known) / either if either else 0.0


def _layout_rank(entry: Entry, path: Path) -> int:
    """0 if the path ends in none of the layouts, case aside; else the more, the earlier it is."""
    parts = tuple(part.casefold() for part in path.absolute().parts)
    for n, layout in enumerate(entry.layouts):
        wanted = tuple(layout.casefold().split("/"))
        if parts[-len(wanted) :] == wanted:
            return len(entry.layouts) - n
    return 0


def _decode(
    base: Path, images: list[str]
) -> tuple[list[tuple[str, str]], Counter[tuple[int, int]]]:
    from rsir.data.images import read_pixels

    def one(path: str) -> tuple[int, int] | str:
        try:
            _, height, width = read_pixels(base / path).shape
        except ImageError as error:
            return str(error)
        return height, width

    corrupt: list[tuple[str, str]] = []
    sizes: Counter[tuple[int, int]] = Counter()
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        for path, result in zip(images, pool.map(one, images), strict=True):
            if isinstance(result, str):
                corrupt.append((path, result))
            else:
                sizes[result] += 1
    return corrupt, sizes


def _key(name: str) -> str:
    """Letters and digits only, case folded, without a plural s: what all spellings share."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    key = "".join(character for character in plain if character.isalnum())
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


def _spellings(entry: Entry) -> dict[str, str]:
    names = {*entry.classes, *entry.class_folders}
    spelled = {_key(name): name for name in names}
    for name, others in entry.aliases.items():
        spelled |= {_key(other): name for other in others}
    return spelled


def _folder_class(entry: Entry, name: str) -> str | None:
    known = find_class(entry, name)
    return known if known in entry.class_folders else None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _even(classes: tuple[str, ...], each: int) -> Mapping[str, int]:
    return MappingProxyType(dict.fromkeys(classes, each))


_UCM = _names(
    "agricultural, airplane, baseball diamond, beach, buildings, chaparral, dense residential, "
    "forest, freeway, golf course, harbor, intersection, medium residential, mobile home park, "
    "overpass, parking lot, river, runway, sparse residential, storage tanks, tennis court"
)
_NWPU = _names(
    "airplane, airport, baseball diamond, basketball court, beach, bridge, chaparral, church, "
    "circular farmland, cloud, commercial area, dense residential, desert, forest, freeway, "
    "golf course, ground track field, harbor, industrial area, intersection, island, lake, meadow, "
    "medium residential, mobile home park, mountain, overpass, palace, parking lot, railway, "
    "railway station, rectangular farmland, river, roundabout, runway, sea ice, ship, snowberg, "
    "sparse residential, stadium, storage tank, tennis court, terrace, thermal power station, "
    "wetland"
)
_SIRI = _names(
    "agriculture, commercial, harbor, idle land, industrial, meadow, overpass, park, pond, "
    "residential, river, water"
)
_PATTERNNET = _names(
    "airplane, baseball field, basketball court, beach, bridge, cemetery, chaparral, "
    "christmas tree farm, closed road, coastal mansion, crosswalk, dense residential, "
    "ferry terminal, football field, forest, freeway, golf course, harbor, intersection, "
    "mobile home park, nursing home, oil gas field, oil well, overpass, parking lot, "
    "parking space, railway, river, runway, runway marking, shipping yard, solar panel, "
    "sparse residential, storage tank, swimming pool, tennis court, transformer station, "
    "wastewater treatment plant"
)
_RSSCN7 = _names("grass, field, industry, river lake, forest, resident, parking")
_AID_COUNTS = MappingProxyType(
    {
        "airport": 360, "bare land": 310, "baseball field": 220, "beach": 400, "bridge": 360,
        "center": 260, "church": 240, "commercial": 350, "dense residential": 410, "desert": 300,
        "farmland": 370, "forest": 250, "industrial": 390, "meadow": 280,
        "medium residential": 290, "mountain": 340, "park": 350, "parking": 390,
        "playground": 370, "pond": 420, "port": 380, "railway station": 260, "resort": 290,
        "river": 410, "school": 300, "sparse residential": 300, "square": 330, "stadium": 290,
        "storage tanks": 360, "viaduct": 420,
    }
)  # fmt: skip
_RS19_COUNTS = MappingProxyType(
    {
        "airport": 55, "beach": 50, "bridge": 52, "commercial": 56, "desert": 50, "farmland": 50,
        "football field": 50, "forest": 53, "industrial": 53, "meadow": 61, "mountain": 50,
        "park": 50, "parking": 50, "pond": 54, "port": 53, "railway station": 50,
        "residential": 54, "river": 56, "viaduct": 58,
    }
)  # fmt: skip

_ALL = (
    Entry(
        name="ucm",
        title="UC Merced Land Use",
        classes=_UCM,
        class_count=21,
        images=2100,
        counts=_even(_UCM, 100),
        size=(256, 256),
        gsd=(0.3, 0.3),
        labels="single",
        citation=Citation(
            authors="Y. Yang, S. Newsam",
            title="Bag-of-visual-words and spatial extensions for land-use classification",
            venue="ACM SIGSPATIAL GIS, pp. 270–279",
            year=2010,
            doi="10.1145/1869790.1869829",
        ),
        home="http://weegee.vision.ucmerced.edu/datasets/landuse.html",
        licence="public domain imagery (USGS National Map)",
        sources="the set's page; torchgeo.datasets.UCMerced; the copy at hand",
        layouts=("UCMerced_LandUse/Images", "UCMerced_LandUse", "UCM/Images", "UCM"),
        torchgeo="UCMerced",
        notes="1 foot per pixel. 44 images are some pixels off 256×256. airplane01 and airplane02 "
        "are the same byte for byte. Its multi-label table has the 17 labels of DLRSD.",
    ),
    Entry(
        name="satrem",
        title="Satellite Remote Sensing Image Database",
        classes=(),
        class_count=20,
        images=3000,
        size=(256, 256),
        labels="single",
        citation=Citation(
            authors="not verified",
            title="used in: dual attention and GeM for remote sensing image retrieval (Chinese)",
            venue="Computer Science and Application 11(3), pp. 515–524, table 1",
            year=2021,
            doi=None,
        ),
        home="its authors; no public address is known",
        licence="not stated",
        sources="numbers from table 1 of the citing paper; the list of classes is not verified",
        layouts=("SATREM",),
    ),
    Entry(
        name="nwpu-resisc45",
        title="NWPU-RESISC45",
        classes=_NWPU,
        class_count=45,
        images=31500,
        counts=_even(_NWPU, 700),
        size=(256, 256),
        gsd=(0.2, 30.0),
        labels="single",
        citation=Citation(
            authors="G. Cheng, J. Han, X. Lu",
            title="Remote sensing image scene classification: benchmark and state of the art",
            venue="Proceedings of the IEEE 105(10), pp. 1865–1883",
            year=2017,
            doi="10.1109/JPROC.2017.2675998",
        ),
        home="https://gcheng-nwpu.github.io/#Datasets",
        licence="not stated; research use",
        sources="paper; torchgeo.datasets.RESISC45",
        layouts=("NWPU-RESISC45", "NWPU-RESISC45/NWPU-RESISC45", "RESISC45"),
        torchgeo="RESISC45",
    ),
    Entry(
        name="siri-whu",
        title="Google image dataset of SIRI-WHU",
        classes=_SIRI,
        class_count=12,
        images=2400,
        counts=_even(_SIRI, 200),
        size=(200, 200),
        gsd=(2.0, 2.0),
        labels="single",
        citation=Citation(
            authors="Q. Zhu, Y. Zhong, B. Zhao, G.-S. Xia, L. Zhang",
            title="Bag-of-visual-words scene classifier with local and global features for high "
            "spatial resolution remote sensing imagery",
            venue="IEEE Geoscience and Remote Sensing Letters 13(6), pp. 747–751",
            year=2016,
            doi="10.1109/LGRS.2015.2513443",
        ),
        home="http://www.lmars.whu.edu.cn/prof_web/zhongyanfei/e-code.html",
        licence="not stated; research use",
        sources="the set's page, as quoted in public lists of remote sensing data sets",
        layouts=(
            "Google dataset of SIRI-WHU_earth_im_tiff/12class_tif",
            "SIRI-WHU/12class_tif",
            "12class_tif",
            "SIRI-WHU",
        ),
        notes="pond/0002.tif is 190×200 pixels in the published archive.",
    ),
    Entry(
        name="aid",
        title="Aerial Image Dataset",
        classes=tuple(_AID_COUNTS),
        class_count=30,
        images=10000,
        counts=_AID_COUNTS,
        size=(600, 600),
        gsd=(0.5, 8.0),
        labels="single",
        citation=Citation(
            authors="G.-S. Xia, J. Hu, F. Hu, B. Shi, X. Bai, Y. Zhong, L. Zhang, X. Lu",
            title="AID: a benchmark data set for performance evaluation of aerial scene "
            "classification",
            venue="IEEE Transactions on Geoscience and Remote Sensing 55(7), pp. 3965–3981",
            year=2017,
            doi="10.1109/TGRS.2017.2685945",
        ),
        home="https://captain-whu.github.io/AID/",
        licence="not stated; research use",
        sources="paper (220 to 420 images a class, 10,000 in all); counts from the copy at hand",
        layouts=("AID", "AID/AID", "AID_dataset/AID", "AID/images"),
        notes="industrial_203 and industrial_205 are the same byte for byte.",
    ),
    Entry(
        name="patternnet",
        title="PatternNet",
        classes=_PATTERNNET,
        class_count=38,
        images=30400,
        counts=_even(_PATTERNNET, 800),
        size=(256, 256),
        gsd=(0.062, 4.693),
        labels="single",
        citation=Citation(
            authors="W. Zhou, S. Newsam, C. Li, Z. Shao",
            title="PatternNet: a benchmark dataset for performance evaluation of remote sensing "
            "image retrieval",
            venue="ISPRS Journal of Photogrammetry and Remote Sensing 145, pp. 197–209",
            year=2018,
            doi="10.1016/j.isprsjprs.2018.01.004",
        ),
        home="https://sites.google.com/view/zhouwx/dataset",
        licence="not stated; research use",
        sources="paper; torchgeo.datasets.PatternNet",
        layouts=("PatternNet/images", "PatternNet"),
        torchgeo="PatternNet",
    ),
    Entry(
        name="whu-rs19",
        title="WHU-RS19",
        classes=tuple(_RS19_COUNTS),
        class_count=19,
        images=1005,
        counts=_RS19_COUNTS,
        size=(600, 600),
        labels="single",
        citation=Citation(
            authors="D. Dai, W. Yang",
            title="Satellite image classification via two-layer sparse coding with biased image "
            "representation",
            venue="IEEE Geoscience and Remote Sensing Letters 8(1), pp. 173–176",
            year=2011,
            doi="10.1109/LGRS.2010.2055033",
        ),
        home="https://github.com/CAPTAIN-WHU/BED4RS",
        licence="not stated; research use",
        sources="counts from a public listing of all 1,005 files (albertofrizzera/VT-RSBS)",
        layouts=("WHU-RS19", "WHU-RS19/WHU-RS19", "RS19", "WHU_RS19/images"),
        notes="Up to 0.5 m per pixel. Not every image is 600×600.",
    ),
    Entry(
        name="rsscn7",
        title="RSSCN7",
        classes=_RSSCN7,
        class_count=7,
        images=2800,
        counts=_even(_RSSCN7, 400),
        size=(400, 400),
        labels="single",
        citation=Citation(
            authors="Q. Zou, L. Ni, T. Zhang, Q. Wang",
            title="Deep learning based feature selection for remote sensing scene classification",
            venue="IEEE Geoscience and Remote Sensing Letters 12(11), pp. 2321–2325",
            year=2015,
            doi="10.1109/LGRS.2015.2475299",
        ),
        home="https://github.com/palewithout/RSSCN7",
        licence="not stated; research use",
        sources="the set's page and its repository; 400 images a class at 4 scales",
        layouts=("RSSCN7", "RSSCN7-master", "rsscn7"),
        archive=Archive(
            url="https://github.com/palewithout/RSSCN7/archive/"
            "0dedd8435c51dc7a391cca3069e6b141213f8568.zip",
            filename="RSSCN7.zip",
        ),
        aliases={
            "grass": ("aGrass", "grassland"),
            "field": ("bField", "farmland"),
            "industry": ("cIndustry", "industrial", "industrial region"),
            "river lake": ("dRiverLake", "river or lake", "river&lake"),
            "forest": ("eForest",),
            "resident": ("fResident", "residential", "residential region"),
            "parking": ("gParking", "parking lot"),
        },
    ),
    Entry(
        name="dlrsd",
        title="DLRSD",
        classes=_names(
            "airplane, bare soil, buildings, cars, chaparral, court, dock, field, grass, "
            "mobile home, pavement, sand, sea, ship, tanks, trees, water"
        ),
        class_count=17,
        images=2100,
        counts=_even(_UCM, 100),
        folders=_UCM,
        size=(256, 256),
        gsd=(0.3, 0.3),
        labels="multi",
        citation=Citation(
            authors="Z. Shao, K. Yang, W. Zhou",
            title="Performance evaluation of single-label and multi-label remote sensing image "
            "retrieval using a dense labeling dataset",
            venue="Remote Sensing 10(6), 964",
            year=2018,
            doi="10.3390/rs10060964",
        ),
        home="https://sites.google.com/view/zhouwx/dataset",
        licence="not stated; research use; the imagery is public domain (USGS National Map)",
        sources="paper; the multi-label table of UC Merced (B. Chaudhuri, B. Demir, S. Chaudhuri, "
        "L. Bruzzone, IEEE TGRS 56(2), pp. 1144–1158, 2018), from which it grew",
        layouts=("DLRSD/Images", "DLRSD", "UCMerced_LandUse/Images"),
        notes="The images of UC Merced with a label for every pixel. An image's labels are those "
        "on any of its pixels; the multi-label table of UC Merced has the same 17.",
    ),
    Entry(
        name="whdld",
        title="WHDLD",
        classes=_names("bare soil, building, pavement, road, vegetation, water"),
        class_count=6,
        images=4940,
        folders=(),
        size=(256, 256),
        gsd=(2.0, 2.0),
        labels="multi",
        citation=Citation(
            authors="Z. Shao, W. Zhou, X. Deng, M. Zhang, Q. Cheng",
            title="Multilabel remote sensing image retrieval based on fully convolutional network",
            venue="IEEE Journal of Selected Topics in Applied Earth Observations and Remote "
            "Sensing 13, pp. 318–328",
            year=2020,
            doi=None,
        ),
        home="https://sites.google.com/view/zhouwx/dataset",
        licence="not stated; research use",
        sources="paper, as quoted in the MLRSIR-NET paper, section 4",
        layouts=("WHDLD/Images", "WHDLD"),
        notes="Urban Wuhan, a label for every pixel. An image's labels are those on any of its "
        "pixels; make a table of them to train on it.",
    ),
)

ENTRIES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ALL})
"""The benchmark sets by name, in the order in which the papers use them."""
