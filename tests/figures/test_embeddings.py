"""The map of the embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from rsir import figures
from rsir.figures import embeddings, style
from rsir.figures.embeddings import positions, sample
from tests.support.reports import axes_of, details_of, labelled


def test_the_sample_is_stratified_with_at_least_one_of_each_class() -> None:
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
    points, method = positions(values, "euclidean", 0)
    assert points.shape == (count, 2)
    assert method == "principal components"
    if count == 2:  # two points keep their distance
        apart = np.linalg.norm(values[0] - values[1])
        assert np.linalg.norm(points[0] - points[1]) == pytest.approx(apart, rel=1e-5)


@pytest.mark.parametrize("metric", sorted(set(embeddings.SKLEARN_METRICS.values())))
def test_equal_points_are_drawn(metric) -> None:
    points, _ = positions(np.full((30, 4), 0.5, np.float32), metric, 0)
    assert (points == 0).all()


def test_a_map_of_codes_compares_signs_and_is_reproducible() -> None:
    random = np.random.default_rng(0)
    codes = np.where(random.random((12, 8)) < 0.5, -1, 1).astype(np.float32)
    points, method = positions(codes, "hamming", 0)
    again, _ = positions(codes * random.random((12, 8)).astype(np.float32), "hamming", 0)
    assert "t-SNE (hamming" in method
    assert np.isfinite(points).all()
    assert (points == again).all()


def test_the_map_shows_a_sample_and_names_the_classes(single, several, monkeypatch) -> None:
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


def test_names_do_not_overlap(pictures) -> None:
    names = [f"a class with a longer name {i}" for i in range(24)]
    images = labelled(pictures, np.arange(24), names)
    picture = figures.embedding_map(details_of(images), "euclidean")
    with style._styled():
        picture.figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes_of(picture).texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
