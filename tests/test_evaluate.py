from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsir import model as models
from rsir import ranking
from rsir.data import folder
from rsir.data.transforms import InputSpec
from rsir.encode import Encoder, load
from rsir.errors import DataError, UsageError
from rsir.evaluate import DISTANCES, HITS_AT, PRECISIONS_AT, evaluate, score_queries


def loop_scores(
    queries: np.ndarray,
    query_targets: np.ndarray,
    gallery: np.ndarray,
    gallery_targets: np.ndarray,
    metric: str,
    leave_one_out: bool,
) -> list[dict[str, float]]:
    """Rank and count, one query at a time, in plain Python."""
    found = []
    for q in range(len(queries)):
        distances = ranking.pairwise(metric, queries[q : q + 1], gallery)[0]
        order = sorted(range(len(gallery)), key=lambda i: (distances[i], i))
        if leave_one_out:
            order.remove(q)
        hits = [
            bool(np.any(query_targets[q] & gallery_targets[i]))
            if gallery_targets.ndim == 2
            else bool(query_targets[q] == gallery_targets[i])
            for i in order
        ]
        total = sum(hits)
        precisions = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
        scores = {"map": sum(precisions) / total if total else 0.0, "relevant": float(total)}
        scores |= {f"r_at_{k}": float(any(hits[:k])) for k in HITS_AT}
        scores |= {f"p_at_{k}": sum(hits[:k]) / k for k in PRECISIONS_AT}
        found.append(scores)
    return found


@pytest.mark.parametrize("metric", DISTANCES)
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_scores_are_those_of_the_loop(metric: str, multi_label: bool, leave_one_out: bool) -> None:
    random = np.random.default_rng(3)
    gallery = random.normal(size=(40, 6)).astype(np.float32)
    targets = (
        (random.random((40, 4)) < 0.3).astype(np.uint8)
        if multi_label
        else random.integers(0, 5, 40)
    )
    queries, query_targets = (
        (gallery, targets) if leave_one_out else (gallery[:9] + 0.1, targets[:9])
    )
    expected = loop_scores(queries, query_targets, gallery, targets, metric, leave_one_out)
    for block in (1, 7, 1000):
        scores = score_queries(
            torch.from_numpy(queries),
            torch.from_numpy(query_targets),
            torch.from_numpy(gallery),
            torch.from_numpy(targets),
            ranking=metric,
            own=torch.arange(40) if leave_one_out else None,
            block=block,
        )
        for name in expected[0]:
            assert scores[name].tolist() == pytest.approx([row[name] for row in expected]), name


def test_a_query_is_never_its_own_answer() -> None:
    twins = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 1, 1])
    scores = score_queries(twins, targets, twins, targets, ranking="cosine", own=torch.arange(3))
    assert scores["r_at_1"].tolist() == [0.0, 0.0, 0.0]
    assert scores["relevant"].tolist() == [0.0, 1.0, 1.0]


def test_equal_distances_go_by_place_in_the_gallery() -> None:
    gallery = torch.ones(3, 2)
    scores = score_queries(
        torch.ones(1, 2), torch.tensor([1]), gallery, torch.tensor([0, 1, 1]), ranking="euclidean"
    )
    assert scores["map"].item() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_what_cannot_be_ranked_is_refused() -> None:
    one, targets = torch.ones(1, 2), torch.tensor([0])
    with pytest.raises(UsageError, match="cosine, euclidean, ncc"):
        score_queries(one, targets, one, targets, ranking="l7")
    with pytest.raises(DataError, match="empty"):
        score_queries(one, targets, one, targets, ranking="cosine", own=torch.arange(1))
    with pytest.raises(DataError, match="empty"):
        score_queries(one, targets, one[:0], targets[:0], ranking="cosine")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    torch.manual_seed(0)
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    made = models.build(
        "pooled", backbone="resnet10t", spec=spec, classes=("a",), options={"pooling": "spoc"}
    )
    return load(made.save(tmp_path_factory.mktemp("model")), device="cpu", batch_size=16)


def test_a_report_counts_and_says_what_it_is(
    encoder: Encoder, coloured_classes: Path, tmp_path: Path
) -> None:
    images = folder.load(coloured_classes)
    report = evaluate(encoder, images, data={"part": "all"})
    embeddings = encoder.encode(list(images.files)).embedding
    expected = loop_scores(embeddings, images.targets, embeddings, images.targets, "cosine", True)
    assert report.metrics["map"] == pytest.approx(np.mean([e["map"] for e in expected]), abs=1e-4)
    assert (report.queries, report.gallery, report.protocol) == (48, 47, "leave-one-out")
    assert set(report.per_class) == set(images.classes)
    per_class = [values["map"] for values in report.per_class.values()]
    assert np.mean(per_class) == pytest.approx(report.metrics["map"])  # equal classes
    report.write(tmp_path / "deep" / "report.json")
    read = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert read["model"]["fingerprint"] == encoder.fingerprint
    assert read["metrics"] == report.metrics
    assert {"map", "r_at_k", "p_at_k", "ties"} <= set(read["definitions"])


def test_query_gallery_keeps_the_two_apart(encoder: Encoder, coloured_classes: Path) -> None:
    images = folder.load(coloured_classes)
    queries, gallery = images.subset(range(0, 48, 4)), images.subset(range(1, 48, 2))
    report = evaluate(encoder, queries, gallery)
    assert (report.queries, report.gallery, report.protocol) == (12, 24, "query-gallery")
    with pytest.raises(DataError, match="both query and gallery"):
        evaluate(encoder, queries, images)


def test_an_unreadable_image_is_left_out_and_listed(encoder: Encoder, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = np.full((32, 32, 3), 40 * i + 100 * (name == "two"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    (tmp_path / "one" / "0.png").write_bytes(b"not an image")
    report = evaluate(encoder, folder.load(tmp_path))
    assert report.queries == 5
    assert [path for path, _ in report.skipped] == ["one/0.png"]
    assert report.per_class["one"]["queries"] == 2
