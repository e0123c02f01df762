"""Strips and heat maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from rsir import figures
from rsir.data.folder import LabelledSet
from rsir.figures import HeatMap, chosen_queries, style
from tests.support.reports import axes_of, details_of, labelled


def slow_relevance(details, row):
    found = []
    for result in details.nearest[row]:
        a, b = details.queries.labels(row), details.gallery.labels(int(result))
        found.append(bool(set(a) & set(b)))
    return found


@pytest.mark.parametrize("kind", ["single", "several"])
def test_wrong_results_have_a_dashed_frame_and_a_cross(kind, request) -> None:
    details = request.getfixturevalue(kind)
    seen = set()
    for choice in chosen_queries(details):
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


def test_best_median_and_worst_and_one_query_per_class_are_chosen(single) -> None:
    ap = single.per_query["map"]
    choices = chosen_queries(single)
    assert choices == chosen_queries(single)
    order = sorted(range(24), key=lambda row: -ap[row])
    assert [choice.row for choice in choices[:3]] == [order[0], order[11], order[23]]
    assert {single.queries.labels(choice.row)[0] for choice in choices[3:]} == {
        "bridge", "field", "river",
    }  # fmt: skip
    assert len({choice.row for choice in choices}) == len(choices)
    assert len({choice.name for choice in choices}) == len(choices)


def test_at_most_eight_classes_are_chosen(pictures) -> None:
    images = labelled(pictures, np.arange(24) // 2, [f"class {i}" for i in range(12)])
    assert len(chosen_queries(details_of(images))) == 3 + 8


def test_a_missing_file_is_drawn_as_no_picture(single, tmp_path) -> None:
    gone = dataclasses.replace(
        single,
        queries=dataclasses.replace(single.queries, root=tmp_path),
        gallery=dataclasses.replace(single.gallery, root=tmp_path),
    )
    axes = axes_of(figures.strip(gone, chosen_queries(gone)[0]))
    assert [text.get_text() for text in axes.texts].count("no picture") == 11


def test_a_heat_map_lies_over_the_models_input(single) -> None:
    heat = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    pixels = np.full((3, 6, 8), 7, np.uint8)
    choice = chosen_queries(single)[0]
    picture = figures.overlay(HeatMap(pixels, heat), single.queries, choice)
    plain, overlaid = picture.figure.axes[:2]
    assert (plain.images[0].get_array() == 7).all()
    assert (overlaid.images[1].get_array() == heat).all()
    for level in (0.0, 1.0):  # no contour line
        flat = HeatMap(pixels[:1], np.full((6, 8), level, np.float32))
        figures.overlay(flat, single.queries, choice)


def test_a_strip_of_real_images(data_root: Path, tmp_path) -> None:
    root = data_root / "UCMerced_LandUse" / "Images"
    paths = [f"{name}/{name}{i:02d}" for name in ("beach", "river") for i in range(3)]
    found = [next(root.glob(f"{path}.*")) for path in paths]
    images = LabelledSet(
        root, tuple(str(f.relative_to(root)) for f in found), ("beach", "river"),
        np.repeat([0, 1], 3).astype(np.int64), False,
    )  # fmt: skip
    details = details_of(images)
    files = figures.strip(details, chosen_queries(details)[0]).save(tmp_path)
    with Image.open(files[0]) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 1000
