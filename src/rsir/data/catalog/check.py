"""Compare a benchmark set on disk with its published facts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rsir.data import folder
from rsir.data.catalog.entries import Entry, find_folder
from rsir.data.catalog.locate import locate
from rsir.data.folder import SHOWN, listed
from rsir.data.splits import hash_files
from rsir.errors import ImageError
from rsir.images.read import read_pixels

DECODE_THREADS = 8
"""Our choice, as `rsir.data.splits.HASH_THREADS`."""


@dataclass(frozen=True)
class CheckReport:
    """The result of `check`. Duplicates and other sizes are notes; they do not make a set wrong.

    counts: images in each class folder, by its canonical name if it has one.
    missing: classes without an image. extra: folders that are not a class of the set.
    wrong: (class, found, expected) counts; ("class folders", …) for a set of unknown class names.
    total: (found, expected) images, or None if they agree.
    corrupt: (path, reason). size: (height, width) as published. sizes: images of each (height,
    width), if decoded. duplicates: groups of files with the same bytes. Paths are relative to
    `root`.
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
        """Whether every class has the right number of images, and all images can be read."""
        return not (self.missing or self.extra or self.wrong or self.total or self.corrupt)

    @property
    def lines(self) -> list[str]:
        """The report as lines of text, the verdict first."""
        found = sum(self.counts.values())
        lines = [
            f"{self.name}: {'ok' if self.ok else 'not as published'} — "
            f"{found} images in {len(self.counts)} folder{'s' if len(self.counts) != 1 else ''}, "
            f"{'all decoded' if self.decoded else 'not decoded'}: {self.root}"
        ]
        if self.missing:
            lines.append(f"missing: {listed(self.missing, 'class', 'es')}")
        if self.extra:
            lines.append(f"not of this set: {listed(self.extra, 'folder')}")
        lines += [f"{name}: {n}, {expected} expected" for name, n, expected in self.wrong]
        if self.total:
            lines.append(f"in all: {self.total[0]} images, {self.total[1]} expected")
        lines += [f"corrupt: {path}: {reason}" for path, reason in self.corrupt[:SHOWN]]
        if len(self.corrupt) > SHOWN:
            lines.append(f"corrupt: … {len(self.corrupt)} in all")
        other = {size: n for size, n in self.sizes.items() if size != self.size}
        if other:
            sizes = ", ".join(f"{n} of {h}×{w}" for (h, w), n in sorted(other.items()))
            lines.append(f"note: published at {self.size[0]}×{self.size[1]}, found {sizes}")
        lines += [f"note: same content: {' = '.join(paths)}" for paths in self.duplicates[:SHOWN]]
        if len(self.duplicates) > SHOWN:
            lines.append(f"note: same content: … {len(self.duplicates)} groups in all")
        return lines


def check(entry: Entry, root: str | Path, *, decode: bool = True) -> CheckReport:
    """Compare the set below `root` with its published facts.

    decode: also decode every image, which is slow. Without it, the report has no corrupt files and
    no sizes. Raises DataError as `locate` does, and for files that cannot be read.
    """
    base = locate(entry, root)
    listing = folder.scan(base)
    flat = entry.folders == ()
    counts: Counter[str] = Counter()
    extra: set[str] = set()
    for name in {f.split("/", 1)[0] for f in listing.folders}:
        known = find_folder(entry, name)
        if known is None and (entry.class_folders or flat):
            extra.add(name)
        else:
            counts[known or name] += 0
    images = []
    for path in listing.images:
        name = path.split("/", 1)[0] if "/" in path else ""
        if name in extra or (not name and not flat):
            continue
        counts[(find_folder(entry, name) or name) if name else "images"] += 1
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


def _decode(
    base: Path, images: list[str]
) -> tuple[list[tuple[str, str]], Counter[tuple[int, int]]]:
    def size_or_reason(path: str) -> tuple[int, int] | str:
        try:
            _, height, width = read_pixels(base / path).shape
        except ImageError as error:
            return str(error)
        return height, width

    corrupt: list[tuple[str, str]] = []
    sizes: Counter[tuple[int, int]] = Counter()
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        for path, result in zip(images, pool.map(size_or_reason, images), strict=True):
            if isinstance(result, str):
                corrupt.append((path, result))
            else:
                sizes[result] += 1
    return corrupt, sizes
