from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsir import ranking
from rsir.data import folder
from rsir.data.folder import LabelledSet
from rsir.data.transforms import InputSpec
from rsir.errors import DataError, UsageError
from rsir.evaluation.evaluate import evaluate
from rsir.evaluation.labelled_embeddings import LabelledEmbeddings
from rsir.evaluation.scoring import score_queries
from rsir.evaluation.statistics import bootstrap_intervals
from rsir.models.encoder import Encoder
from rsir.models.model import build_model


def loop_rankings(embeddings: np.ndarray, targets: np.ndarray) -> list[tuple[list[int], float]]:
    """(rows nearest first, AP) of each image by cosine, leave-one-out, in plain Python."""
    found = []
    for q, distances in enumerate(ranking.pairwise("cosine", embeddings, embeddings)):
        order = sorted(range(len(targets)), key=lambda i: distances[i])
        order.remove(q)
        hits = [targets[i] == targets[q] for i in order]
        precisions = [sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit]
        found.append((order, sum(precisions) / len(precisions) if precisions else 0.0))
    return found


def labelled(images: LabelledSet) -> LabelledSet:
    """The same images with labels: their class, and three labels that classes share."""
    more = np.random.default_rng(0).random((len(images), 3)) < 0.4
    targets = np.concatenate([np.eye(len(images.classes))[images.targets], more], axis=1)
    classes = (*images.classes, "x", "y", "z")
    return dataclasses.replace(
        images, classes=classes, targets=targets.astype(np.uint8), multi_label=True
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    torch.manual_seed(0)
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    made = build_model(
        "pooled", backbone="resnet10t", spec=spec, classes=("a",), options={"pooling": "spoc"}
    )
    return Encoder.load(made.save(tmp_path_factory.mktemp("model")), device="cpu", batch_size=16)


def test_a_report_has_measures_counts_and_origin(
    encoder: Encoder, coloured_classes: Path, tmp_path: Path
) -> None:
    images = folder.load(coloured_classes)
    report = evaluate(encoder, images, data={"part": "all"})
    embeddings = encoder.encode(list(images.files)).embedding
    expected = loop_rankings(embeddings, images.targets)
    assert report.metrics["map"] == pytest.approx(np.mean([ap for _, ap in expected]), abs=1e-4)
    assert (report.queries, report.gallery, report.protocol) == (48, 47, "leave-one-out")
    assert set(report.per_class) == set(images.classes)
    per_class = [values["map"] for values in report.per_class.values()]
    assert np.mean(per_class) == pytest.approx(report.metrics["map"])  # equal classes
    report.write(tmp_path / "deep" / "report.json")
    read = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert read["model"]["fingerprint"] == encoder.fingerprint
    assert read["metrics"] == report.metrics
    assert {"map", "anmrr", "r_at_k", "p_at_k", "ties"} <= set(read["definitions"])
    assert read["curves"] == report.curves
    assert set(read["curves"]) == {"retrieved", "precision_recall", "interpolated"}
    assert report.curves["retrieved"]["k"][-1] == 47
    assert read["queries_without_relevant_dropped"] is report.dropped is False
    assert "ties" not in read
    assert "details" not in read
    # Without `nearest` no results are listed.
    assert report.details.nearest.shape == report.details.distances.shape == (48, 0)


def test_every_measure_has_a_definition(
    encoder: Encoder, hashing: Encoder, coloured_classes: Path
) -> None:
    images = labelled(folder.load(coloured_classes))
    names: set[str] = set()
    for model in (encoder, hashing):
        report = evaluate(model, images)
        defined = set(report.to_dict()["definitions"])
        for values in (report.metrics, report.intervals, *report.per_class.values()):
            plain = {re.sub(r"_at_\d+", "_at_k", name) for name in values} - {"queries"}
            assert plain <= defined
        names |= set(report.metrics)
    assert {"wmap", "acg_at_10", "ndcg_at_100", "ndcg_at_10_list", "map_within_2"} <= names
    assert "relevant" not in names


def test_a_multi_label_report_has_a_row_per_label(encoder: Encoder, coloured_classes: Path) -> None:
    images = labelled(folder.load(coloured_classes))
    report = evaluate(encoder, images)
    per_query = report.details.per_query
    for index, name in enumerate(images.classes):
        rows = images.targets[:, index] > 0
        assert report.per_class[name]["queries"] == rows.sum()
        assert report.per_class[name]["wmap"] == pytest.approx(per_query["wmap"][rows].mean())


def test_details_agree_with_the_measures(encoder: Encoder, coloured_classes: Path) -> None:
    images = folder.load(coloured_classes)
    report = evaluate(encoder, images, nearest=3)
    details = report.details
    embeddings = encoder.encode(list(images.files)).embedding
    assert details.queries.paths == details.gallery.paths == images.paths
    assert details.query_targets.tolist() == details.gallery_targets.tolist()
    assert details.query_targets.tolist() == images.targets.tolist()
    np.testing.assert_allclose(details.query_embeddings, embeddings, atol=1e-5)
    np.testing.assert_allclose(details.gallery_embeddings, embeddings, atol=1e-5)
    expected = loop_rankings(details.gallery_embeddings, images.targets)
    assert details.nearest.tolist() == [order[:3] for order, _ in expected]
    far = ranking.pairwise("cosine", details.query_embeddings, details.gallery_embeddings)
    expected_distances = np.take_along_axis(far, details.nearest, axis=1)
    np.testing.assert_allclose(details.distances, expected_distances, atol=1e-5)
    assert details.per_query["map"].tolist() == pytest.approx([ap for _, ap in expected])
    assert details.per_query["relevant"].tolist() == [11] * 48
    for name, value in report.metrics.items():
        assert value == pytest.approx(details.per_query[name].mean()), name
    measures = {name: details.per_query[name] for name in report.metrics}
    assert report.intervals == bootstrap_intervals(measures)
    for name, (low, high) in report.intervals.items():
        assert low - 1e-12 <= report.metrics[name] <= high + 1e-12, name
    # With two sets, each has its own rows.
    queries, gallery = images.subset(range(0, 48, 4)), images.subset(range(1, 48, 2))
    apart = evaluate(encoder, queries, gallery, nearest=100).details
    assert apart.query_embeddings.shape == (12, encoder.dimension)
    assert apart.gallery_embeddings.shape == (24, encoder.dimension)
    assert apart.gallery_targets.tolist() == gallery.targets.tolist()
    assert np.sort(apart.nearest, axis=1).tolist() == [list(range(24))] * 12


def test_the_best_and_the_worst_order_of_ties(hashing: Encoder, coloured_classes: Path) -> None:
    images = folder.load(coloured_classes)
    report = evaluate(hashing, images, ranking="hamming", ties=True)
    plain = evaluate(hashing, images, ranking="hamming")
    assert report.metrics == plain.metrics
    assert plain.best == plain.worst == {}
    assert set(report.best) == set(report.worst) == set(report.metrics)
    assert report.worst["map"] < report.metrics["map"] < report.best["map"]
    assert report.best["anmrr"] < report.metrics["anmrr"] < report.worst["anmrr"]
    assert report.worst["map_within_2"] < report.best["map_within_2"]
    read = json.loads(json.dumps(report.to_dict()))
    assert read["ties"] == {"best": report.best, "worst": report.worst}


def test_queries_without_relevant_images_count_0_or_are_dropped(
    encoder: Encoder, coloured_classes: Path
) -> None:
    images = folder.load(coloured_classes)
    # Two of three classes, and one image of another.
    few = images.subset([*range(9), *range(12, 20), 24])
    counted = evaluate(encoder, few, nearest=2)
    dropped = evaluate(encoder, few, drop_without_relevant=True, nearest=2)
    assert (counted.queries, counted.gallery) == (18, 17)
    assert (dropped.queries, dropped.gallery) == (17, 17)
    assert counted.queries_without_relevant == dropped.queries_without_relevant == 1
    assert (counted.dropped, dropped.dropped) == (False, True)
    assert dropped.to_dict()["queries_without_relevant_dropped"] is True
    assert counted.details.per_query["map"][-1] == 0
    for name in ("map", "r_at_1", "map_at_10_found", "map_11_point"):
        assert dropped.metrics[name] == pytest.approx(counted.metrics[name] * 18 / 17), name
    assert dropped.metrics["anmrr"] == pytest.approx((counted.metrics["anmrr"] * 18 - 1) / 17)
    # The dropped query stays in the gallery.
    details = dropped.details
    assert details.queries.paths == few.paths[:-1]
    assert details.gallery.paths == few.paths
    assert details.nearest.tolist() == counted.details.nearest[:-1].tolist()
    assert len(details.query_embeddings) == 17
    assert few.classes[images.targets[24]] not in dropped.per_class
    with pytest.raises(DataError, match="no query has a relevant image"):
        evaluate(encoder, images.subset([0, 12, 24]), drop_without_relevant=True)


def test_query_gallery_refuses_an_image_in_both(encoder: Encoder, coloured_classes: Path) -> None:
    images = folder.load(coloured_classes)
    queries, gallery = images.subset(range(0, 48, 4)), images.subset(range(1, 48, 2))
    report = evaluate(encoder, queries, gallery)
    assert (report.queries, report.gallery, report.protocol) == (12, 24, "query-gallery")
    with pytest.raises(DataError, match="both query and gallery"):
        evaluate(encoder, queries, images)


def test_an_unreadable_image_is_skipped_and_listed(encoder: Encoder, tmp_path: Path) -> None:
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
    assert report.details.queries.paths == (
        "one/1.png",
        "one/2.png",
        *(f"two/{i}.png" for i in range(3)),
    )
    assert report.details.gallery_targets.tolist() == [0, 0, 1, 1, 1]


@pytest.fixture(scope="module")
def hashing(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    torch.manual_seed(1)
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    options = {"bits": 12, "attention": "none"}
    classes = tuple("abc")
    made = build_model("dah", backbone="resnet10t", spec=spec, classes=classes, options=options)
    return Encoder.load(made.save(tmp_path_factory.mktemp("hashing")), device="cpu", batch_size=16)


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


def test_a_model_without_codes(encoder: Encoder, coloured_classes: Path) -> None:
    images = folder.load(coloured_classes)
    assert not encoder.hashes
    assert encoder.encode(list(images.files)[:1]).code is None
    with pytest.raises(UsageError, match="hash codes, which the model does not give"):
        evaluate(encoder, images, ranking="hamming")


def test_a_wrong_ranking_is_refused_before_encoding(
    encoder: Encoder, hashing: Encoder, coloured_classes: Path, tmp_path: Path
) -> None:
    images, done = folder.load(coloured_classes), []
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    made = build_model("mlrsir-net", backbone="resnet10t", spec=spec, classes=tuple("abc"))
    unsure = Encoder.load(made.save(tmp_path), device="cpu")
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


def test_a_non_finite_embedding_has_no_code(hashing: Encoder) -> None:
    broken = Encoder(hashing.model, device="cpu")
    with pytest.raises(DataError, match="no hash code"):
        broken._code(np.full((1, 12), np.nan, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("metric", [None, "hamming", "adaptive-hamming", "cosine"])
def test_a_hashing_model_can_be_ranked_in_several_ways(
    hashing: Encoder, coloured_classes: Path, metric: str | None
) -> None:
    images = folder.load(coloured_classes)
    report = evaluate(hashing, images, ranking=metric)
    assert report.ranking == (metric or "adaptive-hamming")
    encoding = hashing.encode(list(images.files))
    chances = encoding.probabilities
    assert chances is not None
    parts = (encoding.embedding, images.targets, chances)
    every = LabelledEmbeddings(*(torch.from_numpy(part) for part in parts))
    own = torch.arange(len(images))
    scores = score_queries(every, every, ranking=report.ranking, own=own, curves=True)
    for measure, value in report.metrics.items():
        assert value == pytest.approx(scores.per_query[measure].mean(), abs=1e-3), measure
    assert set(report.curves) == set(scores.curves)
    assert ("radius" in report.curves) == (report.ranking != "cosine")
