"""Seeded stratified splits, their manifests with content hashes, and the leakage check."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, islice, pairwise, product
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rsir.atomic import replacing
from rsir.data import folder
from rsir.data.folder import SHOWN, LabelledSet, listed
from rsir.data.stratify import divide_by_class, divide_by_labels, exact_share
from rsir.errors import DataError, LeakageError, UsageError

SplitPart = Literal["train", "val", "test"]
PARTS: tuple[SplitPart, ...] = ("train", "val", "test")
HEADER = ("path", "set", "sha256", "labels")
HASH_THREADS = 8
"""Threads that hash files. Our choice: enough to hide the latency of a disk."""


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One image of a split.

    path: posix, relative to the set's root. part: "train", "val" or "test".
    sha256: hex digest of the file's bytes. labels: sorted names; exactly one in a class-folder set.
    """

    path: str
    part: SplitPart
    sha256: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The part that each image of a labelled set belongs to; rows are sorted by path.

    Raises DataError for rows that a manifest cannot hold: repeated or absolute paths, unknown
    parts, invalid digests, labels with "|" in their names. Only `check` looks for leakage.
    """

    rows: tuple[SplitRow, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(sorted(self.rows, key=lambda row: row.path)))
        if not self.rows:
            raise DataError("a split needs at least one image")
        for row in self.rows:
            _check_row(row)
        for row, following in pairwise(self.rows):
            if row.path == following.path:
                raise DataError(f"{row.path}: more than one row in the split")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> tuple[str, ...]:
        """(L,) the labels of all parts, sorted."""
        return tuple(sorted({label for row in self.rows for label in row.labels}))

    @property
    def multi_label(self) -> bool:
        """Whether any image has no label or more than one."""
        return any(len(row.labels) != 1 for row in self.rows)

    @property
    def hash(self) -> str:
        """SHA-256, hex, of the sorted rows: equal for equal images, labels and parts."""
        digest = hashlib.sha256()
        for row in self.rows:
            line = json.dumps([row.path, row.part, row.sha256, sorted(row.labels)])
            digest.update(line.encode("ascii") + b"\n")
        return digest.hexdigest()

    def part(self, *names: SplitPart) -> NDArray[np.int64]:
        """(M,) int64, ascending: indices into `rows` of the named parts.

        Raises UsageError for a name that is not a part.
        """
        for name in names:
            if name not in PARTS:
                raise UsageError(f"{name!r} is not a part of a split; use {', '.join(PARTS)}")
        return np.array([i for i, row in enumerate(self.rows) if row.part in names], np.int64)

    def labelled(self, root: str | Path, *parts: SplitPart) -> LabelledSet:
        """The images of the named parts below `root`, with the classes of the whole split.

        root: the folder that the set was loaded from, or the folder that its paths are relative to.
        Raises DataError naming missing files; `verify` also compares contents.
        """
        chosen = [self.rows[i] for i in self.part(*parts)]
        base = self._base(Path(root))
        missing = [row.path for row in chosen if not (base / row.path).is_file()]
        if missing:
            raise DataError(f"{base}: {listed(missing, 'image')} of the split missing")
        index = {name: i for i, name in enumerate(self.classes)}
        if self.multi_label:
            targets = np.zeros((len(chosen), len(index)), np.uint8)
            for i, row in enumerate(chosen):
                targets[i, [index[label] for label in row.labels]] = 1
        else:
            targets = np.array([index[row.labels[0]] for row in chosen], np.int64)
        return LabelledSet(
            root=base,
            paths=tuple(row.path for row in chosen),
            classes=self.classes,
            targets=targets,
            multi_label=self.multi_label,
        )

    def without(self, paths: Collection[str]) -> Split:
        """The split without these paths, e.g. without images that cannot be read."""
        return Split(tuple(row for row in self.rows if row.path not in paths))

    def check(self) -> None:
        """Raise LeakageError naming images with the same content in different parts."""
        by_content: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row in self.rows:
            by_content[row.sha256][row.part].append(row.path)
        leaks = [(p, q, parts) for parts in by_content.values() for p, q in combinations(parts, 2)]
        if not leaks:
            return
        count = sum(len(parts[p]) * len(parts[q]) for p, q, parts in leaks)
        pairs = (
            f"{a} ({p}) = {b} ({q})"
            for p, q, parts in leaks
            for a, b in product(parts[p], parts[q])
        )
        shown = "; ".join(islice(pairs, SHOWN)) + ("; …" if count > SHOWN else "")
        raise LeakageError(
            f"{count} pair{'s' if count != 1 else ''} of images with the same content in different "
            f"parts of the split: {shown}. Make a new split, or put each pair into one part"
        )

    def verify(self, root: str | Path, *parts: SplitPart) -> None:
        """Compare the files of the named parts, or of all parts, with the hashes of the split.

        Raises DataError naming files that are missing or changed.
        """
        base = self._base(Path(root))
        present: list[SplitRow] = []
        missing: list[str] = []
        for i in self.part(*(parts or PARTS)):
            row = self.rows[i]
            if (base / row.path).is_file():
                present.append(row)
            else:
                missing.append(row.path)
        digests = hash_files([base / row.path for row in present])
        changed = [
            row.path for row, digest in zip(present, digests, strict=True) if digest != row.sha256
        ]
        wrong = [
            f"{listed(names)} {fault}"
            for names, fault in ((missing, "missing"), (changed, "changed"))
            if names
        ]
        if wrong:
            raise DataError(f"{base} does not match the split: {'; '.join(wrong)}")

    def write(self, path: str | Path) -> None:
        """Write the CSV manifest `path,set,sha256,labels` whole or not at all; "|" joins labels.

        Raises LeakageError as `check` does, and DataError if the file cannot be written.
        """
        self.check()
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
                plain = csv.writer(file, lineterminator="\n")
                quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
                plain.writerow(HEADER)
                for row in self.rows:
                    cells = (row.path, row.part, row.sha256, "|".join(row.labels))
                    # Before Python 3.13, csv does not quote a cell with a bare carriage return.
                    (quoted if "\r" in "".join(cells) else plain).writerow(cells)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error

    def _base(self, root: Path) -> Path:
        """`root`, or the folder below it that `folder.load` takes."""
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give the folder of the image set")
        if any((root / row.path).is_file() for row in self.rows):
            return root
        return folder.class_root(root)


def read(path: str | Path) -> Split:
    """The split in a manifest of `Split.write`, checked for leakage.

    Raises DataError naming the malformed line, and LeakageError as `Split.check` does.
    """
    path = Path(path)
    rows: list[SplitRow] = []
    lines: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                header = next(reader, [])
                if tuple(header) != HEADER:
                    raise DataError(f"{path}, line 1: the header must be {','.join(HEADER)}")
                for cells in reader:
                    line = f"{path}, line {reader.line_num}"
                    row = _parse(cells, line)
                    if row.path in lines:
                        raise DataError(f"{line}: {row.path} is in line {lines[row.path]} too")
                    lines[row.path] = reader.line_num
                    rows.append(row)
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from error
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, after line {reader.line_num}: not UTF-8 ({error.reason})"
                ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not rows:
        raise DataError(f"{path}: a header but no images")
    split = Split(tuple(rows))
    try:
        split.check()
    except LeakageError as error:
        raise LeakageError(f"{path}: {error}") from error
    return split


def make(dataset: LabelledSet, *, train: float = 0.8, val: float = 0.0, seed: int = 0) -> Split:
    """A random stratified split of the set: each class is divided in the same proportion.

    train: share of the images, 0 … 1, for training; the rest is "test". 1 is for methods that are
        tested on another set. Of n images of a class, ⌊n·train⌋ or one more are for training, so
        that the total is right too, and each part has at least one.
    val: share, 0 ≤ val < 1, of the *training* images that goes to "val", by the same rule.
    seed: an integer ≥ 0. The split depends on seed, paths, labels and contents only.

    Images with the same bytes are always in the same part, which may cost a class one image more
    or less. Multi-label sets are divided by iterative stratification (Sechidis, Tsoumakas and
    Vlahavas 2011, algorithm 1). Raises UsageError for shares or seeds out of range, and DataError
    for a class with fewer than two different images and for files that cannot be read.
    """
    if not 0 <= train <= 1:
        raise UsageError(f"the share of training images must be from 0 to 1, not {train}")
    if not 0 <= val < 1:
        raise UsageError(f"the share of validation images must be 0 or more and below 1, not {val}")
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, not {seed}")
    if not len(dataset):
        raise DataError(f"{dataset.root}: no images to split")

    order = sorted(range(len(dataset)), key=dataset.paths.__getitem__)
    ordered = dataset.subset(order)
    digests = hash_files(ordered.files)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        groups[digest].append(i)
    if ordered.multi_label:
        hot = ordered.targets.astype(np.int64)
    else:
        hot = np.eye(len(ordered.classes), dtype=np.int64)[ordered.targets]
    members = list(groups.values())
    # (G, L): for each group of identical files, its images with each label.
    weights = np.array([hot[group].sum(axis=0) for group in members])
    sizes = np.array([len(group) for group in members])

    def classes_where(fault: NDArray[np.bool_]) -> str:
        names = [ordered.classes[i] for i in np.flatnonzero(fault)]
        return listed(names, "class", "es") if names else ""

    has_test = 0 < train < 1
    if has_test and (small := classes_where((weights > 0).sum(axis=0) < 2)):
        raise DataError(
            f"{dataset.root}: fewer than two different images of {small}; "
            "a class needs one for training and one for the test: add images or leave it out"
        )
    rng = np.random.default_rng(seed)
    divide = divide_by_labels if ordered.multi_label else divide_by_class
    in_train = divide(weights, sizes, train, rng, least=1 if has_test else 0)
    counts = np.stack([weights[in_train].sum(axis=0), weights[~in_train].sum(axis=0)])
    if has_test and (undivided := classes_where((counts == 0).any(axis=0))):
        raise DataError(
            f"{dataset.root}: all images of {undivided} are in one part, because of identical "
            "files or rare labels; try another seed or another share"
        )
    in_val = np.zeros_like(in_train)
    trained = np.flatnonzero(in_train)
    if val and trained.size:
        stays = divide(weights[trained], sizes[trained], float(1 - exact_share(val)), rng, least=0)
        in_val[trained[~stays]] = True

    rows = []
    for group, is_train, is_val in zip(members, in_train, in_val, strict=True):
        part: SplitPart = "val" if is_val else "train" if is_train else "test"
        rows += [
            SplitRow(ordered.paths[i], part, digests[i], tuple(sorted(ordered.labels(i))))
            for i in group
        ]
    split = Split(tuple(rows))
    split.check()
    return split


def hash_files(files: Sequence[Path]) -> list[str]:
    """The SHA-256, hex, of each file's bytes. Raises DataError for a file that cannot be read."""

    def digest(file: Path) -> str:
        try:
            with file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error

    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return list(pool.map(digest, files))


def _check_row(row: SplitRow) -> None:
    pure = PurePosixPath(row.path)
    if not row.path or "\0" in row.path or pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{row.path!r}: a split needs relative paths below the set's root")
    if row.part not in PARTS:
        raise DataError(
            f"{row.path}: {row.part!r} is not a part of a split; use {', '.join(PARTS)}"
        )
    if not re.fullmatch("[0-9a-f]{64}", row.sha256):
        raise DataError(f"{row.path}: {row.sha256!r} is not a SHA-256 in lower-case hex")
    for label in row.labels:
        if not label or "|" in label:
            raise DataError(
                f"{row.path}: the label {label!r} is empty or contains '|', which separates "
                "labels; rename it"
            )
    if len(set(row.labels)) < len(row.labels):
        repeated = Counter(row.labels).most_common(1)[0][0]
        raise DataError(f"{row.path}: the label {repeated!r} is repeated")


def _parse(cells: list[str], line: str) -> SplitRow:
    if len(cells) != len(HEADER):
        raise DataError(f"{line}: {len(cells)} columns, not {len(HEADER)}: {','.join(HEADER)}")
    path, part, sha256, labels = cells
    known_part = next((name for name in PARTS if name == part), None)
    if known_part is None:
        raise DataError(f"{line}: {part!r} is not a part of a split; use {', '.join(PARTS)}")
    row = SplitRow(path, known_part, sha256, tuple(sorted(labels.split("|"))) if labels else ())
    try:
        _check_row(row)
    except DataError as error:
        raise DataError(f"{line}: {error}") from error
    return row
