"""Near-duplicates: images that show the same thing with different bytes.

`Split.check` compares bytes only, so it misses an image that was compressed, brightened, resized,
slightly cropped, mirrored or rotated. This module reduces each image to a perceptual hash and
reports pairs of nearly equal hashes. It refuses nothing: a person looks at the pairs and decides.

It misses crops that share only a part of the ground. It sometimes reports tiles that contain
nothing but the same strong edge, such as two tiles that the same border of a scene cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsir.data.splits import PARTS, Split, SplitPart
from rsir.errors import ImageError, UsageError
from rsir.images.read import read_pixels

THUMBNAIL = 64
"""Side of the hashed grey thumbnail: four times FREQUENCIES, as in Zauner (2010), who uses 32 and
8."""
FREQUENCIES = 16
"""Lowest frequencies in each direction that the hash uses. Our choice, measured: with the usual 8
(64 bits), different tiles of beach, meadow and desert are as near as real near-duplicates."""
BITS = FREQUENCIES**2
THRESHOLD = 56
"""Bits of 256 in which near-duplicates may differ. Our choice, by looking at the pairs: all 7 pairs
at 56 bits in UC Merced (1 among 2,100 images) and AID (6 among 10,000) show the same ground, and
neither of the 2 further pairs at 64 bits does. Of changed copies of 1,000 of those images, it finds
all that are recompressed (JPEG quality 60), brightened by 25 levels, halved in size, rotated, or
cropped by 1 % on each side and enlarged again; 976 cropped by 2 %, and 676 cropped by 3 %."""
MAX_THRESHOLD = 96
"""Largest threshold, in bits. Unrelated hashes differ in 128 ± 8 bits, and the 4e8 comparisons of
10,000 images include some far below that."""
CORRELATION = 0.8
"""Smallest correlation of the low-passed thumbnails of a pair. Our choice: between the 0.90 of the
weakest of those 7 pairs and the 0.38 of two meadows. The hash alone says little if most
coefficients are nearly zero, as in stripes or in a tile that is half nodata."""
FLAT = 0.5
"""Standard deviation, in grey levels, below which a low-passed thumbnail has no structure to hash.
Our choice: the flattest of the 12,100 images of UC Merced and AID has 1.1."""
FLAT_COLOUR = 2.0
"""Levels in which the mean colours of a pair of flat images may differ. Our choice: JPEG rounds."""

_Floats = NDArray[np.float32]
_SIGNS = np.float32(-1) ** np.arange(FREQUENCIES, dtype=np.float32)
_DOWN, _ACROSS = _SIGNS[:, None], _SIGNS[None, :]
# A mirrored cosine of even frequency is unchanged; of odd frequency, it changes its sign.
SYMMETRIES: dict[str, Callable[[_Floats], _Floats]] = {
    "identity": lambda c: c,
    "rotate-90": lambda c: c.mT * _DOWN,
    "rotate-180": lambda c: c * _DOWN * _ACROSS,
    "rotate-270": lambda c: c.mT * _ACROSS,
    "mirror": lambda c: c * _ACROSS,
    "flip": lambda c: c * _DOWN,
    "transpose": lambda c: c.mT,
    "anti-transpose": lambda c: c.mT * _DOWN * _ACROSS,
}
"""The symmetries of the square, on DCT coefficients (…, 16 down, 16 across). Rotations are
counter-clockwise, "mirror" swaps left and right, "flip" swaps top and bottom, "transpose" and
"anti-transpose" mirror at a diagonal."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that look alike: `symmetry` turns `path_a` nearly into `path_b`.

    distance: bits of 256 in which the hashes differ; 0 for flat images of the same colour.
    symmetry: a key of `SYMMETRIES`. parts: the parts of the split that hold the images, if any.
    """

    path_a: str
    path_b: str
    distance: int
    symmetry: str
    parts: tuple[SplitPart, SplitPart] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values, without "parts" if there is no split."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class NearDuplicates:
    """The result of a search for near-duplicates.

    images: number of images that were read and compared. threshold: bits of 256.
    pairs: by distance, then path. skipped: (path, reason) of images that cannot be read.
    """

    images: int
    threshold: int
    pairs: tuple[Pair, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """One line: the number of pairs, the nearest pair, the number of images skipped."""
        n = len(self.pairs)
        text = f"{n or 'no'} near-duplicate pair{'s' if n != 1 else ''}"
        text += f" among {self.images:,} image{'s' if self.images != 1 else ''}"
        if self.pairs:
            near = self.pairs[0]
            a, b = near.path_a, near.path_b
            if near.parts is not None:
                a, b = f"{a} ({near.parts[0]})", f"{b} ({near.parts[1]})"
            text += f", the nearest {a} ~ {b} ({near.symmetry}, {near.distance} of {BITS} bits)"
        if self.skipped:
            text += f"; {len(self.skipped)} could not be read"
        return text

    def to_dict(self) -> dict[str, Any]:
        """JSON values: count, images, threshold, bits, pairs and skipped."""
        return {
            "count": len(self.pairs),
            "images": self.images,
            "threshold": self.threshold,
            "bits": BITS,
            "pairs": [pair.to_dict() for pair in self.pairs],
            "skipped": [{"path": path, "reason": reason} for path, reason in self.skipped],
        }


def find(
    files: Sequence[Path],
    others: Sequence[Path] | None = None,
    *,
    threshold: int = THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """Pairs of similar images: both from `files`, or one from `files` and one from `others`.

    Two images are a pair if, in one of the eight orientations, their perceptual hashes differ in at
    most `threshold` bits and their low-passed thumbnails correlate by at least CORRELATION. The
    hash (Zauner 2010) has a bit for each of the 16 × 16 lowest DCT coefficients of a grey 64 × 64
    thumbnail: whether it exceeds their median. Images without structure, e.g. black images, have no
    meaningful hash: they are a pair if their mean colours agree.

    Each pair is reported once, in its nearest orientation, with its images in the order of the
    lists. A file that a list names twice counts once; a file in both lists is a pair with itself.
    n copies of an image are n (n - 1) / 2 pairs.

    threshold: 0 … 96. on_progress: called with (images read, images in all). Raises UsageError for
    another threshold.
    """
    if not 0 <= threshold <= MAX_THRESHOLD:
        raise UsageError(f"threshold must be 0 … {MAX_THRESHOLD} bits of {BITS}, not {threshold}")
    features, skipped = _read_features(list(dict.fromkeys([*files, *(others or ())])), on_progress)
    ours = [file for file in dict.fromkeys(files) if file in features]
    theirs = (
        ours if others is None else [file for file in dict.fromkeys(others) if file in features]
    )
    a, b = [features[file] for file in ours], [features[file] for file in theirs]
    same = others is None
    matches = [*_textured_pairs(a, b, threshold, same=same), *_flat_pairs(a, b, same=same)]
    pairs = [Pair(ours[i].as_posix(), theirs[j].as_posix(), d, s) for i, j, d, s in matches]
    return NearDuplicates(len(features), threshold, tuple(sorted(pairs, key=_order)), skipped)


def split_near_duplicates(
    split: Split,
    root: str | Path,
    *,
    threshold: int = THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """Pairs of similar images in different parts of the split, as `find` finds them.

    root: the folder of the set, as for `Split.labelled`. Paths are those of the split; `path_a` is
    in the earlier part of "train", "val" and "test". Raises DataError naming missing files.
    """
    parts: dict[Path, tuple[str, SplitPart]] = {}
    for part in PARTS:
        images = split.labelled(root, part)
        parts |= {f: (path, part) for f, path in zip(images.files, images.paths, strict=True)}
    found = find(list(parts), threshold=threshold, on_progress=on_progress)
    rows = {file.as_posix(): row for file, row in parts.items()}
    pairs = []
    for pair in found.pairs:
        (path_a, part_a), (path_b, part_b) = rows[pair.path_a], rows[pair.path_b]
        if part_a != part_b:
            pairs.append(Pair(path_a, path_b, pair.distance, pair.symmetry, (part_a, part_b)))
    skipped = tuple((rows[path][0], reason) for path, reason in found.skipped)
    return NearDuplicates(found.images, threshold, tuple(sorted(pairs, key=_order)), skipped)


@dataclass(frozen=True, slots=True)
class _Features:
    """What the search compares of an image.

    lowest: (16, 16) float32, lowest DCT coefficients of the thumbnail. colour: (3,) mean, 0 … 255.
    """

    lowest: _Floats
    colour: NDArray[np.float64]

    @property
    def flat(self) -> bool:
        """Whether the low-passed thumbnail has no structure (standard deviation, by Parseval)."""
        return bool(np.linalg.norm(self.lowest.ravel()[1:]) / THUMBNAIL < FLAT)


_Match = tuple[int, int, int, str]
"""Index in the first list, index in the second list, distance, symmetry."""


def _order(pair: Pair) -> tuple[int, str, str]:
    return pair.distance, pair.path_a, pair.path_b


def _read_features(
    files: Sequence[Path], on_progress: Callable[[int, int], None] | None
) -> tuple[dict[Path, _Features], tuple[tuple[str, str], ...]]:
    def read(file: Path) -> _Features | str:
        try:
            return _features_of(read_pixels(file))
        except ImageError as error:
            return str(error)

    features: dict[Path, _Features] = {}
    skipped: list[tuple[str, str]] = []
    with ThreadPoolExecutor() as pool:
        for done, (file, result) in enumerate(zip(files, pool.map(read, files), strict=True), 1):
            if isinstance(result, str):
                skipped.append((file.as_posix(), result))
            else:
                features[file] = result
            if on_progress is not None:
                on_progress(done, len(files))
    return features, tuple(skipped)


def _features_of(pixels: NDArray[np.uint8]) -> _Features:
    """pixels: (3, H, W) uint8."""
    grey = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L")
    # Mode F, because rounding the thumbnail to 8 bits would add noise to faint images.
    small = grey.convert("F").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    # The resize leaves tiny values in place of zeros; 0.01 here is less than 0.001 grey levels.
    lowest = (_BASIS @ np.asarray(small, np.float64) @ _BASIS.T).round(2)
    return _Features(lowest.astype(np.float32), pixels.mean(axis=(1, 2)))


_BASIS = np.sqrt(2 / THUMBNAIL) * np.cos(
    np.pi / (2 * THUMBNAIL) * np.outer(np.arange(FREQUENCIES), 2 * np.arange(THUMBNAIL) + 1)
)
"""(16, 64): the lowest rows of the orthonormal DCT-II."""
_BASIS[0] /= np.sqrt(2)


def _hashes(lowest: _Floats) -> NDArray[np.uint8]:
    """(N, 32) uint8, packed bits: whether each of (N, 16, 16) coefficients exceeds the median."""
    rows = lowest.reshape(len(lowest), BITS)
    return np.packbits(rows > np.median(rows, axis=1, keepdims=True), axis=1)


def _patterns(lowest: _Floats) -> _Floats:
    """(N, 256) float32, whose inner products are the correlations of the low-passed thumbnails."""
    rows = lowest.reshape(len(lowest), BITS).copy()
    rows[:, 0] = 0  # the mean
    unit: _Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _correlations(
    a: _Floats, b: _Floats, i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(M,) correlations of the patterns a[i] with b[j]."""
    result = np.empty(len(i))
    for start in range(0, len(i), _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = np.einsum("nd,nd->n", a[i[block]], b[j[block]])
    return result


_BLOCK = 2**16  # pairs at a time, 64 MiB for each side; our choice


def _textured_pairs(
    a: list[_Features], b: list[_Features], threshold: int, *, same: bool
) -> Iterable[_Match]:
    """Pairs of images with structure, each in its nearest symmetry; the first symmetry wins ties.

    same: `a` and `b` are the same list, so that only pairs i < j count.
    """
    from_a = np.array([i for i, image in enumerate(a) if not image.flat], np.int64)
    from_b = np.array([j for j, image in enumerate(b) if not image.flat], np.int64)
    if not from_a.size or not from_b.size:
        return
    import faiss

    lowest_a = np.stack([a[i].lowest for i in from_a])
    lowest_b = np.stack([b[j].lowest for j in from_b])
    patterns_b = _patterns(lowest_b)
    index = faiss.IndexBinaryFlat(BITS)
    index.add(_hashes(lowest_b))
    found = []  # (M, 4) int64: index in from_a, index in from_b, distance, number of the symmetry
    for symmetry, transform in enumerate(SYMMETRIES.values()):
        transformed = transform(lowest_a)
        # The radius of FAISS is exclusive.
        limits, distances, j = index.range_search(_hashes(transformed), threshold + 1)
        i = np.repeat(np.arange(len(transformed)), (limits[1:] - limits[:-1]).astype(np.int64))
        rows = np.stack([i, j, distances, np.full_like(i, symmetry)], axis=1).astype(np.int64)
        if same:
            rows = rows[rows[:, 0] < rows[:, 1]]
        correlations = _correlations(_patterns(transformed), patterns_b, rows[:, 0], rows[:, 1])
        found.append(rows[correlations >= CORRELATION])
    rows = np.concatenate(found)
    rows = rows[np.lexsort(rows.T[::-1])]
    _, nearest = np.unique(rows[:, :2], axis=0, return_index=True)
    names = list(SYMMETRIES)
    for i, j, distance, symmetry in rows[nearest].tolist():
        yield int(from_a[i]), int(from_b[j]), distance, names[symmetry]


def _flat_pairs(a: list[_Features], b: list[_Features], *, same: bool) -> Iterable[_Match]:
    """Pairs of images without structure whose colours agree."""
    flat = np.array([j for j, image in enumerate(b) if image.flat], np.int64)
    colours = np.array([b[j].colour for j in flat]).reshape(-1, 3)
    for i, image in enumerate(a):
        if image.flat:
            near = (np.abs(colours - image.colour) <= FLAT_COLOUR).all(axis=1)
            yield from ((i, j, 0, "identity") for j in flat[near].tolist() if not same or i < j)
