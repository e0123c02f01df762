from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rsir.cost import timing
from rsir.cost.timing import Duration, Measured, measure
from rsir.data.transforms import InputSpec
from rsir.errors import UsageError
from rsir.models.encoder import Encoder
from rsir.models.model import build_model
from rsir.ranking import metric_named, pairwise, unpacked
from rsir.store.base import Neighbour, checked_vectors
from rsir.types import Encoding

DURATIONS = ("ms_per_image", "ms_per_image_batched", "ms_per_query", "ms_per_search")


def make(method: str, classes: int = 30, spec: InputSpec | int = 32, **options: Any) -> Encoder:
    names = tuple(f"c{i}" for i in range(classes))
    model = build_model(method, backbone="resnet10t", spec=spec, classes=names, options=options)
    return Encoder(model, device="cpu", batch_size=3)


def quick(encoder: Encoder, **settings: Any) -> Measured:
    return measure(encoder, **({"gallery": 50, "queries": 3, "seconds": 0.001} | settings))


@pytest.mark.parametrize(
    ("method", "options", "size"),
    [
        ("dah", {"bits": 64}, 8 + 30 * 4),
        ("dah", {"bits": 64, "ranking": "hamming"}, 8),
        ("dah", {"bits": 12}, 2 + 30 * 4),
        ("mlrsir-net", {"bits": 64}, 8),
        ("mlrsir-net", {"bits": 12}, 2),
        ("pooled", {}, 512 * 4),  # ResNet-10-T has 512 channels
        ("jsrt", {"pca_length": 128}, 128 * 4),  # in its adapted state
        ("jsrt", {"features": "fc"}, 30 * 4),
        ("eara", {}, 1536 * 4),
    ],
)
def test_bytes_per_image(method: str, options: dict[str, Any], size: int) -> None:
    found = quick(make(method, **options), gallery=1100)  # more than one commit
    assert found.bytes_per_image == size
    assert found.table_bytes_per_image > size
    # An id, a hash and a path of 24, 32 and about 40 characters, and numbers.
    assert found.table_bytes_per_image < size + 400


def test_a_measurement_records_its_conditions() -> None:
    found = quick(make("dah", bits=16), batch=2, k=7)
    for name in DURATIONS:
        duration = getattr(found, name)
        assert 0 < duration.p5 <= duration.median <= duration.p95 < float("inf")
        assert duration.runs >= timing.FEWEST
    assert (found.ranking, found.dimension, found.image_size) == (
        "adaptive-hamming:30",
        16,
        (32, 32),
    )
    assert (found.batch, found.gallery, found.k, found.queries) == (2, 50, 7, 3)
    assert (found.device, found.precision, found.torch) == ("cpu", "float32", torch.__version__)
    assert found.threads == torch.get_num_threads()
    assert found.search_threads >= 1
    assert found.cpu
    assert quick(make("pooled")).batch == 3  # the encoder's


def test_the_numbers_are_plain_json() -> None:
    found = quick(make("mlrsir-net"))
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.to_dict()["ms_per_query"]["median"] == found.ms_per_query.median
    assert found.to_dict()["image_size"] == [32, 32]


@pytest.mark.parametrize("method", ["pooled", "jsrt", "dah", "mlrsir-net"])
@pytest.mark.parametrize(("gallery", "k"), [(1, 1), (1, 5), (40, 9), (40, 41)])
def test_the_timed_calls_do_what_the_fields_say(
    method: str, gallery: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, made = [], []
    encodings = timing._encodings

    def remembered(*given: Any) -> NDArray[Any]:
        made.append(encodings(*given))
        return made[-1]

    def once(call: Callable[[], Any], seconds: float, *, shared_by: int = 1) -> Duration:
        results.append((call(), shared_by))
        return Duration(0, 0, 0, 0)

    monkeypatch.setattr(timing, "_timed", once)
    monkeypatch.setattr(timing, "_encodings", remembered)
    encoder = make(method, classes=4)
    measure(encoder, gallery=gallery, batch=2, queries=1, k=k)
    (search, _), (one, _), (many, shared_by), (query, _) = results

    assert isinstance(one, Encoding)
    assert isinstance(many, Encoding)
    assert (len(one), len(many), shared_by) == (1, 2, 2)
    width = 128 if method == "jsrt" else encoder.dimension
    assert one.embedding.shape == (1, width)
    assert (one.code is not None) == encoder.hashes

    # The whole gallery against the query, by brute force.
    (vectors,) = made
    assert len(vectors) == gallery + 1
    distances = pairwise(encoder.ranking, vectors[gallery:], vectors[:gallery])[0]
    nearest = np.lexsort((np.arange(gallery), distances))[:k]
    rows, found = query[0]
    assert rows.tolist() == nearest.tolist()
    assert found.tolist() == distances[nearest].tolist()
    assert all(isinstance(n, Neighbour) for n in search[0])
    assert [n.distance for n in search[0]] == found.tolist()


def test_a_duration_excludes_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    lengths = iter([9.0] * timing.WARM_UP + [0.005, 0.001, 0.002, 0.004, 0.003, 0.016, 5.0])

    def call() -> None:
        now[0] += next(lengths)

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    # Five runs take 0.015 s, the sixth takes them past 0.03.
    found = timing._timed(call, 0.03)
    assert found.runs == 6
    # Sorted: 1, 2, 3, 4, 5, 16 ms; percentiles between them by linear interpolation.
    assert found.median == pytest.approx(3.5)
    assert found.p5 == pytest.approx(1 + 0.25 * 1)
    assert found.p95 == pytest.approx(5 + 0.75 * 11)


def test_a_batch_shares_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(timing, "time", clock)
    found = timing._timed(lambda: None, 0.5, shared_by=4)
    assert found == Duration(250.0, 250.0, 250.0, timing.FEWEST)


def test_measuring_does_not_change_the_model() -> None:
    encoder = make("jsrt")
    module = encoder.module.train()
    module.backbone.eval()
    modes = [m.training for m in module.modules()]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    learnt = [p.requires_grad for p in module.parameters()]
    numbers = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    threads = torch.get_num_threads()
    quick(encoder)
    assert [m.training for m in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == learnt
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert encoder.dimension == 512  # not adapted, although it is measured in its adapted state
    assert encoder.batch_size == 3
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert np.random.get_state()[1].tolist() == numbers[1]  # noqa: NPY002
    assert random.getstate() == numbers[2]
    assert torch.get_num_threads() == threads


def test_a_model_of_other_bands() -> None:
    bands = ("blue", "green", "red", "nir")
    spec = InputSpec(size=40, mean=(0.5,) * 4, std=(0.5,) * 4, bands=bands)
    assert quick(make("pooled", spec=spec)).image_size == (40, 40)


@pytest.mark.parametrize("bits", [1, 12, 64])
def test_random_codes_are_similar_within_a_class(bits: int) -> None:
    rng = np.random.default_rng(1)
    metric = metric_named("adaptive-hamming:5")
    vectors = timing._encodings(metric, bits, 5, 2000, rng)
    checked_vectors(metric.name, bits, vectors)  # padding is zero, probabilities are
    codes, probabilities = unpacked(vectors, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    group = probabilities.argmax(axis=1)
    assert np.median(probabilities.max(axis=1)) == pytest.approx(timing.CONFIDENCE, abs=0.02)
    alike = [pairwise("hamming", codes[group == g], codes[group == g]).mean() for g in range(5)]
    # Two codes differ in a bit if one of them, not both, has it flipped.
    assert np.mean(alike) / bits == pytest.approx(2 * 0.02 * 0.98, rel=0.2)


def test_random_embeddings_are_similar_within_a_class() -> None:
    for name in ("cosine", "euclidean", "ncc"):
        vectors = timing._encodings(metric_named(name), 256, 1, 300, np.random.default_rng(1))
        checked_vectors(name, 256, vectors)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        cosines = (vectors @ vectors.T)[~np.eye(300, dtype=bool)]
        assert cosines.mean() == pytest.approx(1 / (1 + 0.58**2), abs=0.02)


def test_a_single_class_has_probability_1() -> None:
    vectors = timing._encodings(
        metric_named("adaptive-hamming:1"), 8, 1, 4, np.random.default_rng()
    )
    assert unpacked(vectors, 1)[1].tolist() == [[1.0]] * 4


@pytest.mark.parametrize("name", ["gallery", "batch", "queries", "k"])
def test_numbers_start_at_1(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, not 0"):
        quick(make("pooled"), **{name: 0})


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_seconds_are_above_0(seconds: float) -> None:
    with pytest.raises(UsageError, match="seconds must be above 0 and finite"):
        quick(make("pooled"), seconds=seconds)
