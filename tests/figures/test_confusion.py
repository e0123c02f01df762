"""The confusion matrix against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from rsir import figures
from rsir.evaluation.evaluate import EvaluationDetails
from rsir.figures.confusion import strongest
from tests.support.reports import axes_of, details_of, labelled, shares_of


def slow_confusion(details):
    L = len(details.queries.classes)
    shares = np.full((L, L), np.nan)
    for i, label in enumerate(details.queries.classes):
        rows = [q for q in range(len(details.queries)) if label in details.queries.labels(q)]
        for j, held in enumerate(details.queries.classes):
            each = []
            for q in rows:
                near = details.nearest[q]
                each.append(sum(held in details.gallery.labels(int(n)) for n in near) / len(near))
            if each:
                shares[i, j] = sum(each) / len(each)
    return shares


@pytest.mark.parametrize("kind", ["single", "several"])
def test_confusion_agrees_with_loops(kind, request) -> None:
    details = request.getfixturevalue(kind)
    found = figures.confusion(details)
    assert found == pytest.approx(slow_confusion(details), nan_ok=True)
    if kind == "single":
        assert found.sum(axis=1) == pytest.approx(1)


def test_a_class_without_queries_has_an_empty_row(pictures) -> None:
    images = labelled(pictures, [0] * 8 + [1] * 12 + [2] * 4, ("a", "b", "c"))
    whole = details_of(images)
    rows = np.flatnonzero(images.targets != 2)
    whole.nearest[0, 3] = 22
    part = EvaluationDetails(
        images.subset(rows), images, whole.query_embeddings[rows], whole.gallery_embeddings,
        {"map": whole.per_query["map"][rows]}, whole.nearest[rows], whole.distances[rows],
        shares_of(images, whole.nearest[rows]),
    )  # fmt: skip
    found = figures.confusion(part)
    assert np.isnan(found[2]).all()
    assert found == pytest.approx(slow_confusion(part), nan_ok=True)
    picture = figures.confusion_matrix(part)
    assert [t.get_text() for t in axes_of(picture).get_xticklabels()] == ["a", "b", "c"]


def test_the_caption_names_the_strongest_pairs(single) -> None:
    shares = np.array([[0.5, 0.12, 0.38], [0, 1, 0], [0.004, 0, 0.996]])
    pairs = [str(pair) for pair in strongest(shares, ("bridge", "field", "river"))]
    words = ["bridge ← river 38 %", "bridge ← field 12 %", "river ← bridge 0.4 %"]
    assert [pair.replace("\N{NO-BREAK SPACE}", " ") for pair in pairs] == words
    picture = figures.confusion_matrix(single)
    drawn = np.asarray(axes_of(picture).images[0].get_array())
    assert drawn == pytest.approx(figures.confusion(single))
    assert str(strongest(figures.confusion(single), single.queries.classes)[0]) in picture.caption
