"""Images that show the same thing without being the same bytes: the leakage guard's second look.

An image that was compressed, brightened, resized, slightly cropped, mirrored or turned anew passes
for another one where only bytes are compared. Here each image is reduced to a perceptual hash and
pairs of nearly equal hashes are reported, never refused: a person looks at them and decides.

Not found: crops that share only a part of the ground. Found wrongly, now and then: tiles whose
whole content is the same strong edge, such as two that the same border of a scene cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rsir.data.splits import PARTS, Part, Split
from rsir.errors import ImageError, UsageError
from rsir.images.read import read_pixels

THUMBNAIL = 64
"""Side of the grey thumbnail that is hashed; four times FREQUENCIES as in Zauner (2010), who takes
32 and 8."""
FREQUENCIES = 16
"""Lowest frequencies kept in either direction. Our choice, measured: with the usual 8 (64 bits)
unlike tiles of beach, meadow and desert are already as near as real near-duplicates."""
BITS = FREQUENCIES**2
THRESHOLD = 56
"""Bits of 256 in which near-duplicates may differ; our choice, by looking at the pairs. All 7 that
it reports in UC Merced (1 among 2,100 images) and AID (6 among 10,000) show the same place; none of
the 2 that 64 adds does. Of 1,000 of those images it finds every copy that is recompressed (JPEG
quality 60), brightened by 25 levels, halved in size, turned, or cropped by 1 % on each side and
enlarged again; 976 of those cropped by 2 % and 676 of those cropped by 3 %."""
MAX_THRESHOLD = 96
"""Unrelated hashes differ in 128 ± 8 bits, and 4e8 comparisons of 10,000 images reach far down."""
CORRELATION = 0.8
"""Least correlation of the two low-passed thumbnails; our choice, between the 0.90 of the weakest
of those 7 pairs and 0.38 of two meadows. Where only few coefficients are not nearly zero, in
stripes or a tile half of nodata, the bits of the hash alone say little."""
FLAT = 0.5
"""Standard deviation, in grey levels, of a low-passed thumbnail that has no structure to hash; our
choice. The flattest of the 12,100 images of UC Merced and AID has 1.1."""
FLAT_COLOUR = 2.0
"""Levels by which the mean colours of equal flat images may differ; our choice, for JPEG's
rounding."""

_Floats = NDArray[np.float32]
_SIGNS = np.float32(-1) ** np.arange(FREQUENCIES, dtype=np.float32)
_DOWN, _ACROSS = _SIGNS[:, None], _SIGNS[None, :]
# A cosine of even frequency is its own mirror image, an odd one changes its sign.
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
"""The symmetries of the square, on DCT coefficients (…, 16 down, 16 across). Turns are
counter-clockwise, "mirror" swaps left and right, "flip" top and bottom, "transpose" and
"anti-transpose" mirror at a diagonal."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that look alike: `path_b` is nearly what `symmetry` makes of `path_a`.

    distance: bits of 256 in which the hashes differ; 0 for flat images of the same colour.
    symmetry: a key of `SYMMETRIES`. parts: the parts of the split that the two belong to, if any.
    """

    path_a: str
    path_b: str
    distance: int
    symmetry: str
    parts: tuple[Part, Part] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; "parts" only where there is a split."""
        plain = {
            "path_a": self.path_a,
            "path_b": self.path_b,
            "distance": self.distance,
            "symmetry": self.symmetry,
        }
        return plain if self.parts is None else plain | {"parts": list(self.parts)}


@dataclass(frozen=True)
class NearDuplicates:
    """What a search for near-duplicates found.

    images: how many could be read and were compared. threshold: bits of 256.
    pairs: by distance, then path. skipped: (path, reason) of the images that cannot be read.
    """

    images: int
    threshold: int
    pairs: tuple[Pair, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """One line: how many pairs, the nearest of them, how many images were skipped."""
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
        """For JSON: count, images, threshold, bits, pairs and skipped."""
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
    """Pairs of images among `files`, or of one of `files` and one of `others`, that look alike.

    Two images are a pair if, in the nearest of the eight orientations, their perceptual hashes
    differ in at most `threshold` bits and their low-passed thumbnails correlate by CORRELATION or
    more. The hash (Zauner 2010) says which of the lowest DCT coefficients of a grey thumbnail,
    here 16 × 16 of 64 × 64, lie above their median. Images without any structure, such as
    all-black ones, have no meaningful hash: they are pairs if their mean colours agree.

    Each pair is reported once, in the order of the lists; a file named twice in one list counts
    once, and one that is in both lists is a pair with itself. n copies of an image are
    n (n - 1) / 2 pairs.

    threshold: 0 … 96; UsageError for others. on_progress: called with (images read, images in all).
    """
    if not 0 <= threshold <= MAX_THRESHOLD:
        raise UsageError(f"threshold must be 0 … {MAX_THRESHOLD} bits of {BITS}, not {threshold}")
    looks, skipped = _look(list(dict.fromkeys([*files, *(others or ())])), on_progress)
    ours = [file for file in dict.fromkeys(files) if file in looks]
    theirs = ours if others is None else [file for file in dict.fromkeys(others) if file in looks]
    a, b = [looks[file] for file in ours], [looks[file] for file in theirs]
    found = [*_alike(a, b, threshold, once=others is None), *_flat(a, b, once=others is None)]
    pairs = [Pair(ours[i].as_posix(), theirs[j].as_posix(), d, s) for i, j, d, s in found]
    return NearDuplicates(len(looks), threshold, tuple(sorted(pairs, key=_order)), skipped)


def split_near_duplicates(
    split: Split,
    root: str | Path,
    *,
    threshold: int = THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """Pairs of images that look alike and lie in different parts of the split.

    root: the folder of the set, as for `Split.labelled`. The paths are the split's; `path_a` lies
    in the earlier of "train", "val" and "test". Otherwise as `find`. Raises DataError naming files
    that are not there.
    """
    parts: dict[Path, tuple[str, Part]] = {}
    for part in PARTS:
        images = split.labelled(root, part)
        parts |= {f: (path, part) for f, path in zip(images.files, images.paths, strict=True)}
    found = find(list(parts), threshold=threshold, on_progress=on_progress)
    named = {file.as_posix(): known for file, known in parts.items()}
    pairs = []
    for pair in found.pairs:
        (path_a, part_a), (path_b, part_b) = named[pair.path_a], named[pair.path_b]
        if part_a != part_b:
            pairs.append(Pair(path_a, path_b, pair.distance, pair.symmetry, (part_a, part_b)))
    skipped = tuple((named[path][0], reason) for path, reason in found.skipped)
    return NearDuplicates(found.images, threshold, tuple(sorted(pairs, key=_order)), skipped)


@dataclass(frozen=True, slots=True)
class _Look:
    """lowest: (16, 16) float32, DCT coefficients of the thumbnail. colour: (3,) mean, 0 … 255."""

    lowest: _Floats
    colour: NDArray[np.float64]

    @property
    def flat(self) -> bool:
        """Whether the low-passed thumbnail has no structure (Parseval: its standard deviation)."""
        return bool(np.linalg.norm(self.lowest.ravel()[1:]) / THUMBNAIL < FLAT)


_Found = tuple[int, int, int, str]
"""Index of the one, index of the other, distance, symmetry."""


def _order(pair: Pair) -> tuple[int, str, str]:
    return pair.distance, pair.path_a, pair.path_b


def _look(
    files: Sequence[Path], on_progress: Callable[[int, int], None] | None
) -> tuple[dict[Path, _Look], tuple[tuple[str, str], ...]]:
    def read(file: Path) -> _Look | str:
        try:
            return _look_at(read_pixels(file))
        except ImageError as error:
            return str(error)

    looks: dict[Path, _Look] = {}
    skipped: list[tuple[str, str]] = []
    with ThreadPoolExecutor() as pool:
        for done, (file, look) in enumerate(zip(files, pool.map(read, files), strict=True), 1):
            if isinstance(look, str):
                skipped.append((file.as_posix(), look))
            else:
                looks[file] = look
            if on_progress is not None:
                on_progress(done, len(files))
    return looks, tuple(skipped)


def _look_at(pixels: NDArray[np.uint8]) -> _Look:
    """pixels: (3, H, W) uint8."""
    grey = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L")
    # Mode F: rounding the thumbnail to 8 bits again would be the noise of faint images.
    small = grey.convert("F").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    # Zero where it is zero but for the rounding of the resize: a hundredth is < 0.001 grey levels.
    lowest = (_BASIS @ np.asarray(small, np.float64) @ _BASIS.T).round(2)
    return _Look(lowest.astype(np.float32), pixels.mean(axis=(1, 2)))


_BASIS = np.sqrt(2 / THUMBNAIL) * np.cos(
    np.pi / (2 * THUMBNAIL) * np.outer(np.arange(FREQUENCIES), 2 * np.arange(THUMBNAIL) + 1)
)
"""(16, 64): the lowest rows of the orthonormal DCT-II."""
_BASIS[0] /= np.sqrt(2)


def _hashes(lowest: _Floats) -> NDArray[np.uint8]:
    """(N, 32) uint8, packed: which of the (N, 16, 16) coefficients lie above their median."""
    rows = lowest.reshape(len(lowest), BITS)
    return np.packbits(rows > np.median(rows, axis=1, keepdims=True), axis=1)


def _patterns(lowest: _Floats) -> _Floats:
    """(N, 256) float32 whose inner products are the correlations of the low-passed thumbnails."""
    rows = lowest.reshape(len(lowest), BITS).copy()
    rows[:, 0] = 0  # the mean
    unit: _Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _correlations(
    a: _Floats, b: _Floats, i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(M,): of patterns a[i] with b[j]."""
    result = np.empty(len(i))
    for start in range(0, len(i), _BLOCK):
        chosen = slice(start, start + _BLOCK)
        result[chosen] = np.einsum("nd,nd->n", a[i[chosen]], b[j[chosen]])
    return result


_BLOCK = 2**16  # pairs at once: 64 MiB on either side; our choice


def _alike(a: list[_Look], b: list[_Look], threshold: int, *, once: bool) -> Iterable[_Found]:
    """Pairs of images with structure, each in its nearest symmetry, the first of equally near ones.

    once: `a` and `b` are the same images; each pair is wanted once, and none with itself.
    """
    from_a = np.array([i for i, look in enumerate(a) if not look.flat], np.int64)
    from_b = np.array([j for j, look in enumerate(b) if not look.flat], np.int64)
    if not from_a.size or not from_b.size:
        return
    import faiss

    lowest_a = np.stack([a[i].lowest for i in from_a])
    lowest_b = np.stack([b[j].lowest for j in from_b])
    patterns_b = _patterns(lowest_b)
    index = faiss.IndexBinaryFlat(BITS)
    index.add(_hashes(lowest_b))
    found = []
    for symmetry, turn in enumerate(SYMMETRIES.values()):
        turned = turn(lowest_a)
        # FAISS takes the radius as exclusive.
        limits, distances, places = index.range_search(_hashes(turned), threshold + 1)
        i = np.repeat(np.arange(len(turned)), (limits[1:] - limits[:-1]).astype(np.int64))
        rows = np.stack([i, places, distances, np.full_like(i, symmetry)], axis=1).astype(np.int64)
        if once:
            rows = rows[rows[:, 0] < rows[:, 1]]
        if len(rows):
            alike = _correlations(_patterns(turned), patterns_b, rows[:, 0], rows[:, 1])
            found.append(rows[alike >= CORRELATION])
    if not found:
        return
    rows = np.concatenate(found)
    rows = rows[np.lexsort(rows.T[::-1])]
    _, nearest = np.unique(rows[:, :2], axis=0, return_index=True)
    names = list(SYMMETRIES)
    for i, j, distance, symmetry in rows[nearest].tolist():
        yield int(from_a[i]), int(from_b[j]), distance, names[symmetry]


def _flat(a: list[_Look], b: list[_Look], *, once: bool) -> Iterable[_Found]:
    """Pairs of images without structure whose colours agree."""
    flat = np.array([j for j, look in enumerate(b) if look.flat], np.int64)
    colours = np.array([b[j].colour for j in flat]).reshape(-1, 3)
    for i, look in enumerate(a):
        if look.flat:
            near = (np.abs(colours - look.colour) <= FLAT_COLOUR).all(axis=1)
            for j in flat[near].tolist():
                if not once or i < j:
                    yield i, j, 0, "identity"
