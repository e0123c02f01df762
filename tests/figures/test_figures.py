"""Pictures of an evaluation: what is drawn is what was measured, and nothing from outside hurts."""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from rsir import figures
from rsir.data.folder import LabelledSet
from rsir.errors import MissingExtraError, UsageError
from rsir.evaluation.evaluate import Details, Report
from rsir.evaluation.leakage import Leakage
from rsir.figures import HeatMap, chosen, embeddings, style, write
from rsir.figures.confusion import strongest
from rsir.figures.embeddings import positions, sample


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """24 images of 20 × 12 pixels, each of another grey."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        Image.fromarray(np.full((12, 20, 3), 10 * i, np.uint8)).save(root / f"{i:02d}.png")
    return root


def labelled(root, targets, classes):
    targets = np.asarray(targets)
    several = targets.ndim == 2
    return LabelledSet(
        root=root,
        paths=tuple(f"{i:02d}.png" for i in range(len(targets))),
        classes=tuple(classes),
        targets=targets.astype(np.uint8 if several else np.int64),
        multi_label=several,
    )


def details_of(images, *, k=10, seed=0, dimension=6):
    """Leave-one-out by Euclidean distance between random embeddings near their class's corner."""
    random = np.random.default_rng(seed)
    N = len(images)
    targets = images.targets if images.multi_label else np.eye(len(images.classes))[images.targets]
    towards = random.normal(size=(len(images.classes), dimension))
    values = (targets @ towards + 0.8 * random.normal(size=(N, dimension))).astype(np.float32)
    distances = np.linalg.norm(values[:, None] - values[None], axis=2).astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, : min(k, N - 1)]
    ap = random.random(N)
    near = np.take_along_axis(distances, order, axis=1)
    shares = shares_of(images, order)
    return Details(images, images, values, values, {"map": ap}, order, near, shares)


def shares_of(gallery, nearest):
    held = [[name in gallery.labels(i) for name in gallery.classes] for i in range(len(gallery))]
    return np.array(held, float)[nearest].mean(axis=1)


def curves_of(*, bits=None):
    k = [1.0, 2.0, 5.0, 10.0, 20.0]
    precision, recall = [1.0, 0.9, 0.7, 0.55, 0.3], [0.1, 0.2, 0.4, 0.8, 1.0]
    found = {
        "precision_recall": {"recall": recall, "precision": precision},
        "interpolated": {
            "recall": [i / 10 for i in range(11)],
            "precision": [1 - i / 20 for i in range(11)],
        },
        "retrieved": {"k": k, "precision": precision, "recall": recall},
    }
    if bits:
        radius = [float(r) for r in range(bits + 1)]
        found["radius"] = {
            "radius": radius,
            "precision": [0.9 - r / 100 for r in radius],
            "recall": [r / bits for r in radius],
            "map": [0.8 - r / 100 for r in radius],
        }
    return found


def report_of(details, *, ranking="euclidean", bits=None, **changes):
    images = details.queries
    per_class = {}
    for i, name in enumerate(images.classes):
        rows = images.targets[:, i] > 0 if images.multi_label else images.targets == i
        if rows.any():
            mean = float(details.per_query["map"][rows].mean())
            values = {"map": mean, "r_at_1": 0.5, "p_at_10": 0.25}
            per_class[name] = {"queries": int(rows.sum()), **values}
    report = Report(
        metrics={"map": float(details.per_query["map"].mean()), "r_at_1": 0.5, "p_at_10": 0.25},
        per_class=per_class,
        protocol="leave-one-out",
        ranking=ranking,
        queries=len(images),
        gallery=len(images) - 1,
        queries_without_relevant=0,
        skipped=[],
        seconds={},
        model={"method": "pooled", "options": {"pool": "mean"}, "training": {"seed": 1}},
        data={"root": "shapes"},
        intervals={"map": (0.25, 0.75)},
        curves=curves_of(bits=bits),
        best={},
        worst={},
        dropped=False,
        leakage=Leakage(None, True, (), ()),
        details=details,
    )
    return dataclasses.replace(report, **changes)


@pytest.fixture(scope="module")
def single(pictures):
    classes = ("bridge", "field", "river")
    return details_of(labelled(pictures, [0] * 8 + [1] * 12 + [2] * 4, classes))


@pytest.fixture(scope="module")
def several(pictures):
    has = np.random.default_rng(3).random((24, 4)) < 0.4
    has[5] = False
    return details_of(labelled(pictures, has, ("car", "road", "sea", "tree")))


def axes_of(picture):
    return picture.figure.axes[0]


# ---------------------------------------------------------------------------------------- curves


def test_precision_and_recall_are_drawn_as_given() -> None:
    picture = figures.precision_recall({"ours": curves_of()})
    line, marks = axes_of(picture).lines
    given = curves_of()
    assert list(line.get_xdata()) == given["precision_recall"]["recall"]
    assert list(line.get_ydata()) == given["precision_recall"]["precision"]
    assert list(marks.get_xdata()) == given["interpolated"]["recall"]
    assert list(marks.get_ydata()) == given["interpolated"]["precision"]
    assert "0.750" in picture.alt


def test_several_models_differ_by_more_than_colour() -> None:
    names = [f"model {i} with a long name" for i in range(7)]
    picture = figures.precision_recall({name: curves_of() for name in names})
    lines = axes_of(picture).lines
    looks = {
        (line.get_color(), str(line.get_linestyle()), marks.get_marker())
        for line, marks in zip(lines[::2], lines[1::2], strict=True)
    }
    assert len(looks) == len({marker for *_, marker in looks}) == 7
    (legend,) = picture.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names


def test_retrieved_and_radius_are_drawn_as_given() -> None:
    given = curves_of(bits=16)
    for draw, name, x in (
        (figures.retrieved, "retrieved", "k"),
        (figures.hamming_radius, "radius", "radius"),
    ):
        lines = {line.get_label(): line for line in axes_of(draw(given)).lines}
        for label, line in lines.items():
            assert list(line.get_xdata()) == given[name][x]
            assert list(line.get_ydata()) == given[name][label.lower()]
        assert len(lines) == len(given[name]) - 1
        assert len({line.get_linestyle() for line in lines.values()}) == len(lines)


def test_bars_are_the_classes_best_first() -> None:
    values = {"b": 0.5, "a": 0.5, "c": 0.9, "d": 0.0}
    per_class = {name: {"map": v, "queries": i + 1} for i, (name, v) in enumerate(values.items())}
    axes = axes_of(figures.class_bars(per_class, 0.4))
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, 0.5, 0.0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["c  (n = 3)", "a  (n = 2)", "b  (n = 1)", "d  (n = 4)"]
    assert list(axes.lines[0].get_xdata()) == [0.4, 0.4]


def test_of_very_many_classes_the_lowest_are_drawn() -> None:
    per_class = {f"{i:03d}": {"map": i / 100, "queries": 1} for i in range(80)}
    picture = figures.class_bars(per_class, 0.4)
    assert max(bar.get_width() for bar in axes_of(picture).patches) == 0.59
    assert "60 lowest of 80" in picture.caption


# ---------------------------------------------------------------------------------------- strips


def slow_relevance(details, row):
    found = []
    for place in details.nearest[row]:
        a, b = details.queries.labels(row), details.gallery.labels(int(place))
        found.append(bool(set(a) & set(b)))
    return found


@pytest.mark.parametrize("kind", ["single", "several"])
def test_wrong_results_have_a_dashed_frame_and_a_cross(kind, request) -> None:
    details = request.getfixturevalue(kind)
    seen = set()
    for choice in chosen(details):
        axes = axes_of(figures.strip(details, choice))
        frames = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_linewidth()][1:]
        expected = slow_relevance(details, choice.row)
        assert [to_hex(f.get_edgecolor()) == style.RIGHT.lower() for f in frames] == expected
        assert [f.get_linestyle() in ("-", "solid") for f in frames] == expected
        crosses = [(li.get_xdata()[0], li.get_ydata()[0]) for li in axes.lines]
        for frame, good in zip(frames, expected, strict=True):
            x, y = frame.get_xy()
            inside = [
                x < a < x + frame.get_width() and y < b < y + frame.get_height() for a, b in crosses
            ]
            assert sum(inside) == (0 if good else 2)  # a disc and a cross
        greys = [int(image.get_array()[0, 0, 0]) for image in axes.images]
        assert greys == [10 * int(row) for row in (choice.row, *details.nearest[choice.row])]
        seen |= set(expected)
    assert seen == {True, False}


def test_best_median_worst_and_a_query_of_each_class(single) -> None:
    ap = single.per_query["map"]
    choices = chosen(single)
    assert choices == chosen(single)
    order = sorted(range(24), key=lambda row: -ap[row])
    assert [choice.row for choice in choices[:3]] == [order[0], order[11], order[23]]
    assert {single.queries.labels(choice.row)[0] for choice in choices[3:]} == {
        "bridge", "field", "river",
    }  # fmt: skip
    assert len({choice.row for choice in choices}) == len(choices)
    assert len({choice.name for choice in choices}) == len(choices)


def test_of_many_classes_eight_are_shown(pictures) -> None:
    images = labelled(pictures, np.arange(24) // 2, [f"class {i}" for i in range(12)])
    assert len(chosen(details_of(images))) == 3 + 8


def test_a_file_that_vanished_is_said_and_the_rest_is_drawn(single, tmp_path) -> None:
    gone = dataclasses.replace(
        single,
        queries=dataclasses.replace(single.queries, root=tmp_path),
        gallery=dataclasses.replace(single.gallery, root=tmp_path),
    )
    axes = axes_of(figures.strip(gone, chosen(gone)[0]))
    assert [text.get_text() for text in axes.texts].count("no picture") == 11


def test_a_heat_map_lies_over_the_models_input(single) -> None:
    heat = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    pixels = np.full((3, 6, 8), 7, np.uint8)
    choice = chosen(single)[0]
    picture = figures.overlay(HeatMap(pixels, heat), single.queries, choice)
    plain, overlaid = picture.figure.axes[:2]
    assert (plain.images[0].get_array() == 7).all()
    assert (overlaid.images[1].get_array() == heat).all()
    for level in (0.0, 1.0):  # nothing to put a line around
        flat = HeatMap(pixels[:1], np.full((6, 8), level, np.float32))
        figures.overlay(flat, single.queries, choice)


# ------------------------------------------------------------------------------------- confusion


def slow_confusion(details):
    L = len(details.queries.classes)
    shares = np.full((L, L), np.nan)
    for i, asked in enumerate(details.queries.classes):
        rows = [q for q in range(len(details.queries)) if asked in details.queries.labels(q)]
        for j, held in enumerate(details.queries.classes):
            each = []
            for q in rows:
                near = details.nearest[q]
                each.append(sum(held in details.gallery.labels(int(n)) for n in near) / len(near))
            if each:
                shares[i, j] = sum(each) / len(each)
    return shares


@pytest.mark.parametrize("kind", ["single", "several"])
def test_confusion_is_the_loops(kind, request) -> None:
    details = request.getfixturevalue(kind)
    found = figures.confusion(details)
    assert found == pytest.approx(slow_confusion(details), nan_ok=True)
    if kind == "single":
        assert found.sum(axis=1) == pytest.approx(1)


def test_a_class_without_queries_has_no_row_but_can_be_found(pictures) -> None:
    images = labelled(pictures, [0] * 8 + [1] * 12 + [2] * 4, ("a", "b", "c"))
    whole = details_of(images)
    rows = np.flatnonzero(images.targets != 2)
    whole.nearest[0, 3] = 22
    part = Details(
        images.subset(rows), images, whole.query_embeddings[rows], whole.gallery_embeddings,
        {"map": whole.per_query["map"][rows]}, whole.nearest[rows], whole.distances[rows],
        shares_of(images, whole.nearest[rows]),
    )  # fmt: skip
    found = figures.confusion(part)
    assert np.isnan(found[2]).all()
    assert found == pytest.approx(slow_confusion(part), nan_ok=True)
    picture = figures.confusion_matrix(part)
    assert [t.get_text() for t in axes_of(picture).get_xticklabels()] == ["a", "b", "c"]


def test_the_strongest_pairs_are_named_in_words(single) -> None:
    shares = np.array([[0.5, 0.12, 0.38], [0, 1, 0], [0.004, 0, 0.996]])
    pairs = [str(pair) for pair in strongest(shares, ("bridge", "field", "river"))]
    words = ["bridge ← river 38 %", "bridge ← field 12 %", "river ← bridge 0.4 %"]
    assert [pair.replace("\N{NO-BREAK SPACE}", " ") for pair in pairs] == words
    picture = figures.confusion_matrix(single)
    drawn = np.asarray(axes_of(picture).images[0].get_array())
    assert drawn == pytest.approx(figures.confusion(single))
    assert str(strongest(figures.confusion(single), single.queries.classes)[0]) in picture.caption


# ------------------------------------------------------------------------------------ embeddings


def test_the_sample_has_of_each_class_its_share_and_at_least_one() -> None:
    groups = np.repeat([0, 1, 2, 3], [600, 300, 99, 1])
    rows = sample(groups, 100, seed=0)
    assert len(rows) == len(set(rows)) == 100
    counts = np.bincount(groups[rows], minlength=4)
    assert np.abs(counts - np.array([60, 30, 9.9, 0.1])).max() <= 1
    assert counts[3] == 1
    assert (sample(groups, 100, seed=0) == rows).all()
    assert (sample(groups, 100, seed=1) != rows).any()
    assert (sample(groups, 5000, seed=0) == np.arange(1000)).all()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_points_are_at_their_principal_components(count) -> None:
    values = np.random.default_rng(0).normal(size=(count, 7)).astype(np.float32)
    points, how = positions(values, "euclidean", 0)
    assert points.shape == (count, 2)
    assert how == "principal components"
    if count == 2:  # no distance is lost
        apart = np.linalg.norm(values[0] - values[1])
        assert np.linalg.norm(points[0] - points[1]) == pytest.approx(apart, rel=1e-5)


@pytest.mark.parametrize("metric", sorted(set(embeddings.METRICS.values())))
def test_equal_points_are_drawn(metric) -> None:
    points, _ = positions(np.full((30, 4), 0.5, np.float32), metric, 0)
    assert (points == 0).all()


def test_a_map_of_codes_compares_signs_and_is_the_same_again() -> None:
    random = np.random.default_rng(0)
    codes = np.where(random.random((12, 8)) < 0.5, -1, 1).astype(np.float32)
    points, how = positions(codes, "hamming", 0)
    again, _ = positions(codes * random.random((12, 8)).astype(np.float32), "hamming", 0)
    assert "t-SNE (hamming" in how
    assert np.isfinite(points).all()
    assert (points == again).all()


def test_the_map_is_of_a_sample_and_names_the_classes(single, several, monkeypatch) -> None:
    monkeypatch.setattr(embeddings, "MOST_POINTS", 12)
    picture = figures.embedding_map(single, "cosine")
    axes = axes_of(picture)
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 12
    assert [text.get_text() for text in axes.texts] == ["bridge", "field", "river"]
    assert "12 of 24 queries" in picture.caption
    assert "cosine" in picture.caption
    monkeypatch.undo()
    names = [text.get_text() for text in axes_of(figures.embedding_map(several, "ncc")).texts]
    assert set(names) <= {"car", "road", "sea", "tree", embeddings.NO_LABEL}
    assert embeddings.NO_LABEL in names


def test_no_name_covers_another(pictures) -> None:
    names = [f"a class with a longer name {i}" for i in range(24)]
    images = labelled(pictures, np.arange(24), names)
    picture = figures.embedding_map(details_of(images), "euclidean")
    with style._styled():
        picture.figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes_of(picture).texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


# ---------------------------------------------------------------------------------------- report


class Parser(HTMLParser):
    """Collects tags and text, and complains of any tag that is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


HOSTILE = "<script>alert(1)</script> $x^2 & \"q\" 'a' \\frac ../.. \n %s {{ 7 * 7 }} 林"


def test_the_whole_report(several, tmp_path) -> None:
    classes = (HOSTILE, *several.queries.classes[1:])
    images = dataclasses.replace(several.queries, classes=classes)
    details = dataclasses.replace(several, queries=images, gallery=images)
    heat = HeatMap(np.zeros((3, 8, 8), np.uint8), np.eye(8, dtype=np.float32))
    report = report_of(
        details, ranking="hamming", bits=6, skipped=[(f"{HOSTILE}.png", "is <b>cut</b> off")],
        model={"method": HOSTILE, "options": {"x": [HOSTILE]}}, best={"map": 0.6},
        worst={"map": 0.4}, leakage=Leakage(None, True, (HOSTILE,), ()),
    )  # fmt: skip
    heat_maps = {choice.row: heat for choice in chosen(details)[:2]}
    before = dict(mpl.rcParams)
    files = write(report, details, tmp_path / "new" / "a", heat_maps=heat_maps)
    assert dict(mpl.rcParams) == before
    assert not pyplot.get_fignums()
    names = [file.name for file in files]
    assert len(set(names)) == len(names)
    assert {"precision-recall.svg", "retrieved.png", "hamming-radius.png", "classes.svg"} <= set(
        names
    )
    assert {"confusion.png", "embeddings.png", "strip-best.png", "heat-best.png"} <= set(names)
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|svg|html)", name) for name in names)
    assert sorted(p.name for p in (tmp_path / "new" / "a").iterdir()) == sorted(names)

    html = files[-1].read_text("utf-8")
    page = Parser(html)
    assert not {"script", "link", "iframe", "b"} & {tag for tag, _ in page.seen}
    images_shown = [attributes for tag, attributes in page.seen if tag == "img"]
    assert len(images_shown) == sum(name.endswith(".png") for name in names)
    assert all(a["src"].startswith("data:image/") and a["alt"] for a in images_shown)
    for _, attributes in page.seen:
        assert not {"onload", "onerror", "style"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
    assert "//" not in re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", html)
    (policy,) = [a["content"] for _, a in page.seen if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    assert "<script>alert(1)</script>" in page.text
    assert "49" not in re.findall(r"%s (\S+)", page.text)
    assert f"{report.metrics['map']:.4f}" in page.text
    assert "0.2500 – 0.7500" in page.text
    assert "0.4000 – 0.6000" in page.text
    assert "is <b>cut</b> off" in page.text
    assert "leakage" in page.text
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {a["href"][1:] for _, a in page.seen if "href" in a} <= set(ids)

    again = write(report, details, tmp_path / "b", heat_maps=heat_maps)
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]


def test_one_query_of_one_class_without_codes(pictures, tmp_path) -> None:
    images = labelled(pictures, [0, 0], ("only",))
    details = details_of(images)
    assert details.nearest.shape == (2, 1)
    query = Details(
        images.subset([0]), images.subset([1]), details.query_embeddings[:1],
        details.gallery_embeddings[1:], {"map": np.ones(1)}, np.zeros((1, 1), np.int64),
        details.distances[:1], np.ones((1, 1)),
    )  # fmt: skip
    names = {file.name for file in write(report_of(query), query, tmp_path)}
    assert not any(name.startswith("hamming-radius") for name in names)
    assert {"strip-best.png", "confusion.png", "embeddings.png", "report.html"} <= names


def test_without_nearest_images_there_are_no_strips(single, tmp_path) -> None:
    bare = dataclasses.replace(
        single, nearest=single.nearest[:, :0], distances=single.distances[:, :0]
    )
    names = {file.name for file in write(report_of(bare, curves={}), bare, tmp_path)}
    assert names == {"classes.png", "classes.svg", "embeddings.png", "report.html"}


def test_a_file_is_no_folder_for_figures(single, tmp_path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="taken is a file"):
        write(report_of(single), single, tmp_path / "taken")


@pytest.mark.parametrize("missing", ["matplotlib", "sklearn"])
def test_a_missing_library_names_the_command(single, tmp_path, monkeypatch, missing) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rsir\[figures\]'"):
        write(report_of(single), single, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_images(data_root: Path, tmp_path) -> None:
    root = data_root / "UCMerced_LandUse" / "Images"
    paths = [f"{name}/{name}{i:02d}" for name in ("beach", "river") for i in range(3)]
    found = [next(root.glob(f"{path}.*")) for path in paths]
    images = LabelledSet(
        root, tuple(str(f.relative_to(root)) for f in found), ("beach", "river"),
        np.repeat([0, 1], 3).astype(np.int64), False,
    )  # fmt: skip
    details = details_of(images)
    files = figures.strip(details, chosen(details)[0]).save(tmp_path)
    with Image.open(files[0]) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 1000
