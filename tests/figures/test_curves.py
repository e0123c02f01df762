"""Curves and bars: the figures show the given values."""

from __future__ import annotations

from rsir import figures
from tests.support.reports import axes_of, curves_of


def test_precision_and_recall_show_the_given_values() -> None:
    picture = figures.precision_recall({"ours": curves_of()})
    line, markers = axes_of(picture).lines
    given = curves_of()
    assert list(line.get_xdata()) == given["precision_recall"]["recall"]
    assert list(line.get_ydata()) == given["precision_recall"]["precision"]
    assert list(markers.get_xdata()) == given["interpolated"]["recall"]
    assert list(markers.get_ydata()) == given["interpolated"]["precision"]
    assert "0.750" in picture.alt


def test_models_differ_in_marker_and_not_only_in_colour() -> None:
    names = [f"model {i} with a long name" for i in range(7)]
    picture = figures.precision_recall({name: curves_of() for name in names})
    lines = axes_of(picture).lines
    looks = {
        (line.get_color(), str(line.get_linestyle()), markers.get_marker())
        for line, markers in zip(lines[::2], lines[1::2], strict=True)
    }
    assert len(looks) == len({marker for *_, marker in looks}) == 7
    (legend,) = picture.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names


def test_the_legend_of_one_model_names_what_its_marks_mean() -> None:
    picture = figures.precision_recall({"ours": curves_of()})
    (legend,) = picture.figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["all points", "interpolated, 11 points"]
    # Below the curves, never over them.
    picture.figure.canvas.draw()
    assert not legend.get_window_extent().overlaps(axes_of(picture).get_window_extent())


def test_retrieved_and_radius_show_the_given_values() -> None:
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


def test_bars_show_the_classes_best_first() -> None:
    values = {"b": 0.5, "a": 0.5, "c": 0.9, "d": 0.0}
    per_class = {name: {"map": v, "queries": i + 1} for i, (name, v) in enumerate(values.items())}
    axes = axes_of(figures.class_bars(per_class, 0.4))
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.5, 0.5, 0.0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["c  (n = 3)", "a  (n = 2)", "b  (n = 1)", "d  (n = 4)"]
    assert list(axes.lines[0].get_xdata()) == [0.4, 0.4]


def test_of_many_classes_the_lowest_are_drawn() -> None:
    per_class = {f"{i:03d}": {"map": i / 100, "queries": 1} for i in range(80)}
    picture = figures.class_bars(per_class, 0.4)
    assert max(bar.get_width() for bar in axes_of(picture).patches) == 0.59
    assert "60 lowest of 80" in picture.caption
