from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
from rsir.evaluate import (
    FOUND_AT,
    HITS_AT,
    PRECISIONS_AT,
    RANKINGS,
    Described,
    evaluate,
    score_queries,
)


def loop_ap(hits: list[bool]) -> float:
    precisions = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
    return sum(precisions) / len(precisions) if precisions else 0.0


def loop_scores(
    queries: np.ndarray,
    query_targets: np.ndarray,
    gallery: np.ndarray,
    gallery_targets: np.ndarray,
    metric: str,
    leave_one_out: bool,
    rng: np.random.Generator | None = None,
) -> list[dict[str, Any]]:
    """Rank and count, one query at a time, in plain Python; ties in random order (of `rng`)."""
    found = []
    for q in range(len(queries)):
        distances = ranking.pairwise(metric, queries[q : q + 1], gallery)[0]
        places = range(len(gallery)) if rng is None else rng.permutation(len(gallery)).tolist()
        order = sorted(places, key=lambda i: distances[i])
        if leave_one_out:
            order.remove(q)
        hits = [
            bool(np.any(query_targets[q] & gallery_targets[i]))
            if gallery_targets.ndim == 2
            else bool(query_targets[q] == gallery_targets[i])
            for i in order
        ]
        total = sum(hits)
        scores = {"map": loop_ap(hits), "relevant": float(total)}
        scores |= {f"map_at_{k}_found": loop_ap(hits[:k]) for k in FOUND_AT}
        scores |= {f"r_at_{k}": float(any(hits[:k])) for k in HITS_AT}
        scores |= {f"p_at_{k}": sum(hits[:k]) / k for k in PRECISIONS_AT}
        scores["ranks"] = [rank for rank, hit in enumerate(hits, start=1) if hit]
        found.append(scores)
    largest = max(len(scores["ranks"]) for scores in found)
    for scores in found:
        scores["anmrr"] = loop_nmrr(scores.pop("ranks"), largest)
    return found


def loop_nmrr(ranks: list[int], largest: int) -> float:
    if not ranks:
        return 1.0
    limit = min(4 * len(ranks), 2 * largest)
    average = sum(rank if rank <= limit else 1.25 * limit for rank in ranks) / len(ranks)
    best = (1 + len(ranks)) / 2
    return (average - best) / (1.25 * limit - best)


def described(vectors: np.ndarray, targets: np.ndarray, *more: np.ndarray) -> Described:
    return Described(*(torch.from_numpy(values) for values in (vectors, targets, *more)))


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "ncc"])
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
            described(queries, query_targets),
            described(gallery, targets),
            ranking=metric,
            own=torch.arange(40) if leave_one_out else None,
            block=block,
        )
        for name in expected[0]:
            assert scores[name].tolist() == pytest.approx([row[name] for row in expected]), name


@pytest.mark.parametrize("metric", ["hamming", "adaptive-hamming"])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_scores_of_codes_are_the_mean_over_random_orders_of_ties(
    metric: str, leave_one_out: bool
) -> None:
    random = np.random.default_rng(4)
    relaxed = random.uniform(-1, 1, (24, 5)).astype(np.float32)
    relaxed[0, 0] = 0.0  # not above 0, so no bit
    targets = random.integers(0, 4, 24)
    chances = (random.integers(0, 2, (24, 3)) / 2).astype(np.float32)
    rows = np.packbits(relaxed > 0, axis=1)
    name = metric
    if metric == "adaptive-hamming":
        rows, name = ranking.packed(rows, chances), "adaptive-hamming:3"
    gallery = described(relaxed, targets, chances)
    queries = gallery if leave_one_out else gallery[:7]
    own = torch.arange(24) if leave_one_out else None
    drawn = [
        loop_scores(
            rows[: len(queries)],
            targets[: len(queries)],
            rows,
            targets,
            name,
            leave_one_out,
            random,
        )
        for _ in range(1500)
    ]
    for block in (5, 1000):
        scores = score_queries(queries, gallery, ranking=metric, own=own, block=block)
        assert set(scores) == set(drawn[0][0])
        for measure, values in scores.items():
            per_draw = np.array([[row[measure] for row in rows] for rows in drawn])
            # Five standard errors of 1500 draws, and rounding.
            slack = 5 * per_draw.std(axis=0) / np.sqrt(len(drawn)) + 1e-9
            assert (np.abs(per_draw.mean(axis=0) - values) <= slack).all(), measure


@pytest.mark.parametrize("bits", [1, 12, 64])
def test_distances_of_codes_are_those_of_the_archive(bits: int) -> None:
    from rsir.evaluate import _adaptive, _hamming

    random = np.random.default_rng(bits)
    relaxed = random.uniform(-1, 1, (9, bits)).astype(np.float32)
    chances = random.dirichlet(np.ones(4), 9).astype(np.float32)
    codes = np.packbits(relaxed > 0, axis=1)
    rows = ranking.packed(codes, chances)
    images = described(relaxed, np.zeros(9, np.int64), chances)
    hamming = _hamming(images.embedding, images.embedding)
    assert hamming.tolist() == ranking.pairwise("hamming", codes, codes).tolist()
    far = ranking.pairwise("adaptive-hamming:4", rows, rows)
    np.testing.assert_allclose(_adaptive(images, images), far, rtol=1e-15)


def test_a_query_is_never_its_own_answer() -> None:
    twins = torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    images = Described(twins, torch.tensor([0, 1, 1]), torch.full((3, 2), 0.5))
    for metric in RANKINGS:
        scores = score_queries(images, images, ranking=metric, own=torch.arange(3))
        assert scores["r_at_1"].tolist() == [0.0, 0.0, 0.5], metric
        assert scores["relevant"].tolist() == [0.0, 1.0, 1.0], metric


def test_equal_distances_are_averaged() -> None:
    gallery = Described(torch.ones(3, 2), torch.tensor([0, 1, 1]))
    query = Described(torch.ones(1, 2), torch.tensor([1]))
    scores = score_queries(query, gallery, ranking="euclidean")
    # The other image first, second or third.
    wanted = ((1 / 2 + 2 / 3) / 2 + (1 + 2 / 3) / 2 + 1) / 3
    assert scores["map"].item() == pytest.approx(wanted)
    assert scores["r_at_1"].item() == pytest.approx(2 / 3)


def test_what_cannot_be_ranked_is_refused() -> None:
    one = Described(torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(UsageError, match="cosine, euclidean, ncc, hamming, adaptive-hamming"):
        score_queries(one, one, ranking="l7")
    with pytest.raises(DataError, match="empty"):
        score_queries(one, one, ranking="cosine", own=torch.arange(1))
    with pytest.raises(DataError, match="empty"):
        score_queries(one, one[:0], ranking="cosine")
    with pytest.raises(DataError, match="no queries"):
        score_queries(one[:0], one, ranking="cosine")
    with pytest.raises(UsageError, match="class probabilities"):
        score_queries(one, one, ranking="adaptive-hamming")
    zeros = Described(torch.zeros(1, 2), one.targets)
    with pytest.raises(DataError, match="vector of zeros, which cosine"):
        score_queries(one, zeros, ranking="cosine")
    # Of 0.1 a rounded mean leaves something.
    for value in (0.0, 0.1, 1.0):
        constant = Described(torch.full((1, 7), value), one.targets)
        other = Described(torch.arange(7.0)[None], one.targets)
        with pytest.raises(DataError, match="constant vector, which ncc"):
            score_queries(other, constant, ranking="ncc")
        with pytest.raises(UsageError, match="constant"):
            ranking.pairwise("ncc", other.embedding.numpy(), constant.embedding.numpy())
    wrong = Described(one.embedding, one.targets, torch.tensor([[0.5, torch.nan]]))
    with pytest.raises(DataError, match="probabilities"):
        score_queries(wrong, wrong, ranking="adaptive-hamming")


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
    assert {"map", "anmrr", "r_at_k", "p_at_k", "ties"} <= set(read["definitions"])


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


@pytest.fixture(scope="module")
def hashing(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    torch.manual_seed(1)
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    options = {"bits": 12, "attention": "none"}
    classes = tuple("abc")
    made = models.build("dah", backbone="resnet10t", spec=spec, classes=classes, options=options)
    return load(made.save(tmp_path_factory.mktemp("hashing")), device="cpu", batch_size=16)


def test_a_hashing_model_gives_codes_and_probabilities(
    hashing: Encoder, coloured_classes: Path
) -> None:
    files = list(folder.load(coloured_classes).files)[:20]
    encoding = hashing.encode(files)
    assert (hashing.ranking, hashing.dimension, hashing.hashes) == ("adaptive-hamming:3", 12, True)
    assert encoding.code is not None
    assert encoding.probabilities is not None
    assert encoding.code.shape == (20, 2)
    bits = np.unpackbits(encoding.code, axis=1)
    assert bits[:, :12].tolist() == (encoding.embedding > 0).tolist()
    assert not bits[:, 12:].any()
    np.testing.assert_allclose(encoding.probabilities.sum(axis=1), 1, rtol=1e-5)
    none = hashing.encode([])
    assert none.code is not None
    assert none.probabilities is not None
    assert (none.embedding.shape, none.code.shape) == ((0, 12), (0, 2))
    assert none.probabilities.shape == (0, 3)


def test_a_model_of_floats_has_no_codes(encoder: Encoder, coloured_classes: Path) -> None:
    images = folder.load(coloured_classes)
    assert not encoder.hashes
    assert encoder.encode(list(images.files)[:1]).code is None
    with pytest.raises(UsageError, match="hash codes, which the model does not give"):
        evaluate(encoder, images, ranking="hamming")


def test_a_ranking_that_does_not_fit_is_refused_before_anything_is_encoded(
    encoder: Encoder, hashing: Encoder, coloured_classes: Path, tmp_path: Path
) -> None:
    images, done = folder.load(coloured_classes), []
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    made = models.build("mlrsir-net", backbone="resnet10t", spec=spec, classes=tuple("abc"))
    unsure = load(made.save(tmp_path), device="cpu")
    for model, metric, message in (
        (unsure, "adaptive-hamming", "'adaptive-hamming' needs class probabilities"),
        (unsure, "adaptive-hamming:3", "'adaptive-hamming:3' needs class probabilities"),
        (hashing, "adaptive-hamming:5", "has 3 classes"),
        (hashing, "adaptive-hamming:", "has 3 classes"),
        (hashing, "hamming:3", "take one of"),
        (encoder, "cosine:foo", "take one of"),
        (encoder, "euclidean:", "take one of"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(model, images, ranking=metric, on_progress=lambda *n: done.append(n))
    assert not done
    assert evaluate(hashing, images, ranking="adaptive-hamming:3").ranking == "adaptive-hamming"


def test_a_code_is_not_made_of_what_is_not_finite(hashing: Encoder) -> None:
    broken = Encoder(hashing.model, device="cpu")
    with pytest.raises(DataError, match="no hash code"):
        broken._code(np.full((1, 12), np.nan, np.float32))


@pytest.mark.parametrize("metric", [None, "hamming", "adaptive-hamming", "cosine"])
def test_a_hashing_model_is_evaluated_by_any_of_its_rankings(
    hashing: Encoder, coloured_classes: Path, metric: str | None
) -> None:
    images = folder.load(coloured_classes)
    report = evaluate(hashing, images, ranking=metric)
    assert report.ranking == (metric or "adaptive-hamming")
    encoding = hashing.encode(list(images.files))
    chances = encoding.probabilities
    assert chances is not None
    every = described(encoding.embedding, images.targets, chances)
    own = torch.arange(len(images))
    scores = score_queries(every, every, ranking=report.ranking, own=own)
    for measure, value in report.metrics.items():
        assert value == pytest.approx(scores[measure].mean(), abs=1e-3), measure
