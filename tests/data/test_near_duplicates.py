"""Near-duplicates: which pairs are found, in which symmetry, against a comparison of all pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from rsir.data import near_duplicates, splits
from rsir.data.near_duplicates import BITS, CORRELATION, SYMMETRIES, find, split_near_duplicates
from rsir.data.splits import Split, SplitPart, SplitRow
from rsir.errors import DataError, UsageError
from rsir.images.read import read_pixels

Pixels = NDArray[np.uint8]
TURNS: dict[str, Callable[[Pixels], Pixels]] = {
    "identity": lambda x: x,
    "rotate-90": lambda x: np.rot90(x),
    "rotate-180": lambda x: np.rot90(x, 2),
    "rotate-270": lambda x: np.rot90(x, 3),
    "mirror": np.fliplr,
    "flip": np.flipud,
    "transpose": lambda x: x.transpose(1, 0, 2),
    "anti-transpose": lambda x: np.rot90(x, 2).transpose(1, 0, 2),
}

pytestmark = pytest.mark.slow


def scene(seed: int, size: int = 96) -> Pixels:
    """(size, size, 3) uint8: overlapping rectangles of random colours and a little noise."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), rng.integers(40, 200, 3), np.float64)
    for _ in range(40):
        top, left = rng.integers(0, size - 8, 2)
        height, width = rng.integers(6, size // 3, 2)
        pixels[top : top + height, left : left + width] = rng.integers(20, 220, 3)
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


def save(pixels: Pixels, file: Path, **options: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, **options)
    return file


def names(found: near_duplicates.NearDuplicates) -> set[tuple[str, str, str]]:
    return {(Path(p.path_a).stem, Path(p.path_b).stem, p.symmetry) for p in found.pairs}


def resized(pixels: Pixels, size: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))


def test_different_scenes_are_no_pairs(tmp_path: Path) -> None:
    files = [save(scene(i), tmp_path / f"{i}.png") for i in range(60)]
    found = find(files)
    assert found.pairs == ()
    assert found.images == 60
    assert str(found) == "no near-duplicate pairs among 60 images"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda x: x, 0),
        (lambda x: np.clip(x.astype(int) + 25, 0, 255).astype(np.uint8), 16),
        (lambda x: (x * 0.8).astype(np.uint8), 16),
        (lambda x: resized(x, 48), 16),
        (lambda x: resized(x, 200), 16),
        (lambda x: resized(x[1:-1, 1:-1], 96), 56),
    ],
    ids=["identical", "brighter", "darker", "smaller", "larger", "cropped"],
)
def test_a_changed_copy_is_found(
    tmp_path: Path, change: Callable[[Pixels], Pixels], most: int
) -> None:
    files = [save(scene(i), tmp_path / f"{i}.png") for i in range(8)]
    copies = [save(change(scene(i)), tmp_path / f"copy{i}.png") for i in range(8)]
    found = find(files + copies)
    assert names(found) == {(str(i), f"copy{i}", "identity") for i in range(8)}
    assert max(pair.distance for pair in found.pairs) <= most


def test_a_recompressed_copy_is_found(tmp_path: Path) -> None:
    file = save(scene(0), tmp_path / "a.png")
    copy = save(scene(0), tmp_path / "b.jpg", quality=60)
    assert names(find([file, copy])) == {("a", "b", "identity")}


@pytest.mark.parametrize("symmetry", TURNS)
def test_a_turned_or_mirrored_copy_is_found_as_such(tmp_path: Path, symmetry: str) -> None:
    file = save(scene(5), tmp_path / "a.png")
    copy = save(TURNS[symmetry](scene(5)), tmp_path / "b.jpg", quality=75)
    assert names(find([file], [copy])) == {("a", "b", symmetry)}
    assert names(find([file, copy])) == {("a", "b", symmetry)}


def test_all_symmetries_are_there() -> None:
    assert list(SYMMETRIES) == list(TURNS)


def test_turned_oblong_images(tmp_path: Path) -> None:
    oblong = scene(3)[:60]
    file = save(oblong, tmp_path / "a.png")
    copy = save(np.rot90(oblong), tmp_path / "b.png")
    assert names(find([file, copy])) == {("a", "b", "rotate-90")}


def slow_pairs(files: list[Path], others: list[Path] | None, threshold: int) -> set[tuple]:
    """Compare every pair: transformed pixels in place of coefficients, and the DCT of SciPy."""

    def lowest(pixels: Pixels) -> NDArray[np.float64]:
        grey = Image.fromarray(np.ascontiguousarray(pixels)).convert("L").convert("F")
        small = np.asarray(grey.resize((64, 64), Image.Resampling.LANCZOS), np.float64)
        return dctn(small, norm="ortho")[:16, :16].ravel()

    def bits(c: NDArray[np.float64]) -> list[bool]:
        middle = sorted(c)[127] / 2 + sorted(c)[128] / 2
        return [bool(value > middle) for value in c]

    pixels = {f: read_pixels(f).transpose(1, 2, 0) for f in [*files, *(others or [])]}
    turned = {f: {s: lowest(turn(pixels[f])) for s, turn in TURNS.items()} for f in pixels}
    hashes = {f: {s: bits(c) for s, c in of.items()} for f, of in turned.items()}
    result = set()
    for a, b in combinations(files, 2) if others is None else product(files, others):
        best = None
        for s in TURNS:
            pairs = zip(hashes[a][s], hashes[b]["identity"], strict=True)
            distance = sum(x != y for x, y in pairs)
            alike = np.corrcoef(
                [0, *turned[a][s][1:], *-turned[a][s][1:]],
                [0, *turned[b]["identity"][1:], *-turned[b]["identity"][1:]],
            )[0, 1]
            near = distance <= threshold and alike >= CORRELATION
            if near and (best is None or distance < best[0]):
                best = (distance, s)
        if best:
            result.add((a.as_posix(), b.as_posix(), *best))
    return result


@pytest.fixture
def crowd(tmp_path: Path) -> list[Path]:
    """Scenes, and transformed copies with a growing share of another scene mixed in."""
    files = []
    for i in range(6):
        for j, (name, share) in enumerate(
            zip(("identity", "flip", "rotate-90", "transpose"), (0, 0.15, 0.3, 0.45), strict=True)
        ):
            mixed = (1 - share) * scene(i) + share * scene(100 + i)
            files.append(save(TURNS[name](mixed.astype(np.uint8)), tmp_path / f"{i}{j}.png"))
    return files


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0, 20, 56, 96])
def test_the_search_agrees_with_a_comparison_of_all_pairs(
    crowd: list[Path], threshold: int
) -> None:
    def as_tuples(found: near_duplicates.NearDuplicates) -> set[tuple]:
        assert len(set(found.pairs)) == len(found.pairs)
        return {(p.path_a, p.path_b, p.distance, p.symmetry) for p in found.pairs}

    within, across = slow_pairs(crowd, None, threshold), slow_pairs(crowd[:9], crowd[6:], threshold)
    assert as_tuples(find(crowd, threshold=threshold)) == within
    assert as_tuples(find(crowd[:9], crowd[6:], threshold=threshold)) == across
    if threshold == 56:
        assert 0 < len(within) < len(slow_pairs(crowd, None, 96))


def test_nothing_and_one_image(tmp_path: Path) -> None:
    assert find([]).pairs == ()
    assert find([]).images == 0
    file = save(scene(0), tmp_path / "a.png")
    assert find([file]).pairs == ()
    assert str(find([file])) == "no near-duplicate pairs among 1 image"
    assert find([file], []).pairs == ()
    assert find([], [file]).pairs == ()


def test_an_image_is_a_pair_with_itself_only_if_both_lists_name_it(tmp_path: Path) -> None:
    file = save(scene(0), tmp_path / "a.png")
    assert find([file, file]).pairs == ()
    (pair,) = find([file], [file]).pairs
    assert (pair.path_a, pair.path_b, pair.distance) == (file.as_posix(), file.as_posix(), 0)


def test_three_copies_are_three_pairs_nearest_first(tmp_path: Path) -> None:
    files = [
        save(scene(0), tmp_path / f"{name}.jpg", quality=q)
        for name, q in (("a", 95), ("b", 20), ("c", 94))
    ]
    found = find(files)
    assert names(found) == {(a, b, "identity") for a, b in ("ab", "ac", "bc")}
    assert [p.distance for p in found.pairs] == sorted(p.distance for p in found.pairs)


def test_unreadable_images_are_listed_and_the_others_compared(tmp_path: Path) -> None:
    a, b = save(scene(0), tmp_path / "a.png"), save(scene(0), tmp_path / "b.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(a.read_bytes()[:200])
    seen: list[tuple[int, int]] = []
    found = find([a, broken, b], on_progress=lambda done, total: seen.append((done, total)))
    assert names(found) == {("a", "b", "identity")}
    assert found.images == 2
    ((path, reason),) = found.skipped
    assert path == broken.as_posix()
    assert "broken.png" in reason
    assert str(found).endswith("; 1 could not be read")
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_images_without_structure_are_pairs_only_if_their_colours_agree(tmp_path: Path) -> None:
    def plain(*colour: int) -> Pixels:
        return np.full((70, 50, 3), colour, np.uint8)

    files = [
        save(plain(0, 0, 0), tmp_path / "black.png"),
        save(plain(0, 0, 0), tmp_path / "black2.jpg"),
        save(plain(1, 0, 1), tmp_path / "nearly.png"),
        save(plain(140, 140, 140), tmp_path / "grey.png"),
        save(plain(200, 40, 60), tmp_path / "red.png"),
        save(plain(200, 40, 60), tmp_path / "red2.jpg"),
        save(scene(0), tmp_path / "scene.png"),
    ]
    grey_of_red = int(np.asarray(Image.fromarray(plain(200, 40, 60)).convert("L"))[0, 0])
    files.append(save(plain(*[grey_of_red] * 3), tmp_path / "grey_as_red.png"))
    blacks = combinations(("black", "black2", "nearly"), 2)
    assert names(find(files)) == {(*pair, "identity") for pair in [*blacks, ("red", "red2")]}
    assert names(find(files[:1], files[1:])) == {
        ("black", "black2", "identity"),
        ("black", "nearly", "identity"),
    }


def test_stripes_that_share_only_their_direction_are_no_pairs(tmp_path: Path) -> None:
    """All but one column of their coefficients is zero, so that most bits of their hashes agree."""
    files = []
    for i in range(12):
        row = np.random.default_rng(i).integers(0, 256, 24).repeat(4)
        files.append(
            save(np.tile(row.astype(np.uint8)[:, None], (96, 1, 3)), tmp_path / f"{i}.png")
        )
    copy = save(np.rot90(read_pixels(files[0]).transpose(1, 2, 0)), tmp_path / "copy.png")
    features, _ = near_duplicates._read_features(files, None)
    hashes = near_duplicates._hashes(np.stack([image.lowest for image in features.values()]))
    assert max(int(np.bitwise_count(a ^ b).sum()) for a, b in combinations(hashes, 2)) <= 56
    ((_, b, distance),) = {(p.path_a, p.path_b, p.distance) for p in find([*files, copy]).pairs}
    assert (b, distance) == (copy.as_posix(), 0)


@pytest.mark.parametrize("threshold", [-1, 97, 256])
def test_thresholds_out_of_range(threshold: int) -> None:
    with pytest.raises(UsageError, match="threshold must be 0 … 96"):
        find([], threshold=threshold)


def a_split(root: Path, contents: dict[str, tuple[SplitPart, Pixels | None]]) -> Split:
    rows: list[SplitRow] = []
    for name, (part, pixels) in contents.items():
        file = root / "field" / name
        if pixels is None:
            file.write_bytes(b"no image")
        else:
            save(pixels, file)
        rows.append(SplitRow(f"field/{name}", part, splits.hash_files([file])[0], ("field",)))
    return Split(tuple(rows))


def test_pairs_across_the_parts_of_a_split(tmp_path: Path) -> None:
    split = a_split(
        tmp_path,
        {
            "a.png": ("test", scene(0)),
            "b.png": ("train", np.rot90(scene(0))),
            "c.jpg": ("train", scene(1)),
            "d.png": ("train", scene(1)),
            "e.png": ("test", scene(2)),
            "f.jpg": ("val", scene(2)),
            "g.png": ("val", None),
        },
    )
    split.check()  # no equal bytes
    found = split_near_duplicates(split, tmp_path)
    assert {(p.path_a, p.path_b, p.symmetry, p.parts) for p in found.pairs} == {
        ("field/b.png", "field/a.png", "rotate-270", ("train", "test")),
        ("field/f.jpg", "field/e.png", "identity", ("val", "test")),
    }
    assert found.images == 6
    assert [path for path, _ in found.skipped] == ["field/g.png"]

    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["count"] == 2
    assert plain["images"] == 6
    assert (plain["threshold"], plain["bits"]) == (56, BITS)
    assert plain["pairs"][0] == {
        "path_a": "field/b.png",
        "path_b": "field/a.png",
        "distance": 0,
        "symmetry": "rotate-270",
        "parts": ["train", "test"],
    }
    assert plain["skipped"][0]["path"] == "field/g.png"
    assert str(found) == (
        "2 near-duplicate pairs among 6 images, the nearest field/b.png (train) ~ field/a.png "
        "(test) (rotate-270, 0 of 256 bits); 1 could not be read"
    )


def test_a_split_whose_files_are_gone(tmp_path: Path) -> None:
    split = a_split(tmp_path, {"a.png": ("test", scene(0)), "b.png": ("train", scene(1))})
    (tmp_path / "field" / "a.png").unlink()
    with pytest.raises(DataError, match=r"field/a\.png"):
        split_near_duplicates(split, tmp_path)


def test_pairs_without_a_split_have_no_parts(tmp_path: Path) -> None:
    files = [save(scene(0), tmp_path / f"{name}.png") for name in "ab"]
    (pair,) = find(files).to_dict()["pairs"]
    assert set(pair) == {"path_a", "path_b", "distance", "symmetry"}


def test_uc_merced_has_one_known_pair_and_its_runways_are_not_pairs(data_root: Path) -> None:
    root = data_root / "UCMerced_LandUse" / "Images"
    files = sorted(f for name in ("airplane", "beach", "runway") for f in (root / name).iterdir())
    found = find(files)
    assert found.images == 300
    assert names(found) == {("airplane01", "airplane02", "identity")}


def test_aid_shows_two_stadiums_twice(data_root: Path) -> None:
    files = sorted((data_root / "AID" / "Stadium").iterdir())
    assert names(find(files)) == {
        ("stadium_190", "stadium_63", "identity"),
        ("stadium_206", "stadium_210", "rotate-180"),
    }


def test_importing_needs_neither_faiss_nor_torch() -> None:
    code = "import sys, rsir.data.near_duplicates; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"faiss", "torch"} & set(done.stdout.split())
