from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rsir
from rsir import cli
from rsir.archive.archive import Archive
from rsir.data import folder, splits
from rsir.data.transforms import InputSpec
from rsir.errors import ArchiveError, DataError, UsageError
from rsir.models.adapt import adapt, adapt_to
from rsir.models.encoder import Encoder
from rsir.models.model import Model, build_model
from rsir.training.settings import TrainingSettings
from rsir.training.train import train

SPEC = InputSpec(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def make(method: str = "jsrt", **options: Any) -> Model:
    options = {"fc1": 24, "pca_length": 6, **options} if method == "jsrt" else options
    return build_model(method, backbone="resnet10t", spec=SPEC, classes=("a", "b"), options=options)


def gallery(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (3, 32, 40 + i), dtype=np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, coloured_classes: Path) -> Path:
    """A jsrt model trained for an epoch, with a split of its own."""
    split = splits.make(folder.load(coloured_classes), train=0.7, val=0.2, seed=0)
    return train(
        "jsrt",
        split,
        coloured_classes,
        tmp_path_factory.mktemp("adapt") / "run",
        backbone="resnet10t",
        weights="none",
        options={"fc1": 24, "pca_length": 6},
        settings=TrainingSettings(
            epochs=1, batch_size=8, sampler="shuffle", image_size=32, workers=0
        ),
    )


@pytest.fixture(scope="module")
def archive(run: Path, coloured_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapt") / "archive"
    Archive.create(path, rsir.load(run, device="cpu")).add(coloured_classes / "lake")
    return path


def oracle(features: np.ndarray, images: np.ndarray, length: int) -> np.ndarray:
    """`images` projected onto the principal components of `features`, by NumPy's SVD."""
    centred = features - features.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:length]
    for row in components:
        row *= np.sign(row[np.abs(row).argmax()])
    return (images - features.mean(axis=0)) @ components.T


def features_of(encoder: Encoder, images: list[np.ndarray]) -> np.ndarray:
    """(N, F) outputs of FC1, computed image by image."""
    rows = []
    with torch.no_grad():
        for image in images:
            batch = SPEC.normalise(SPEC.prepare(image)[None])
            rows.append(encoder.module.features(batch)[0].double().numpy())
    return np.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_adapted_embedding_is_the_projection(tmp_path: Path, batch_size: int) -> None:
    images, others = gallery(30), gallery(4, seed=1)
    encoder = Encoder(make(), device="cpu", batch_size=batch_size)
    assert encoder.dimension == 24
    expected = oracle(features_of(encoder, images), features_of(encoder, others), length=6)
    fresh, adapted = adapt_to(encoder, images, tmp_path / "adapted")
    assert (adapted.images, adapted.skipped) == (30, ())
    assert fresh.dimension == 6
    embedding = fresh.encode(others).embedding
    np.testing.assert_allclose(embedding, expected, atol=1e-5 * float(np.abs(expected).max() + 1))
    again = rsir.load(tmp_path / "adapted", device="cpu")
    np.testing.assert_allclose(again.encode(others).embedding, embedding, atol=1e-6)
    assert again.dimension == again.card["dimension"] == 6
    assert again.model.training["adapted_to"]["images"] == 30
    assert encoder.dimension == 24  # the original is unchanged


def test_training_adapts_the_model(run: Path, coloured_classes: Path) -> None:
    card = json.loads((run / "model.json").read_text())
    assert card["dimension"] == 6
    assert card["training"]["adapted_to"]["images"] == card["training"]["train_images"]
    encoder = rsir.load(run, device="cpu")
    split = splits.read(run / "split.csv")
    files = split.labelled(coloured_classes, "train").files
    embedding = encoder.encode(files).embedding
    # The PCA was fitted to these images: centred and uncorrelated.
    np.testing.assert_allclose(embedding.mean(axis=0), 0, atol=1e-3)
    covariance = np.cov(embedding.T.astype(np.float64))
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)


def test_zero_epochs_adapt_the_model_too(coloured_classes: Path, tmp_path: Path) -> None:
    split = splits.make(folder.load(coloured_classes), train=0.7, val=0.0, seed=0)
    out = train(
        "jsrt",
        split,
        coloured_classes,
        tmp_path / "run",
        backbone="resnet10t",
        weights="none",
        settings=TrainingSettings(epochs=0, image_size=32, workers=0),
    )
    # 32 images have 31 directions; the other 97 components are zero, the dimension stays.
    assert rsir.load(out, device="cpu").dimension == 128


def test_adapting_gives_another_fingerprint(run: Path, archive: Path, tmp_path: Path) -> None:
    trained = rsir.load(run, device="cpu")
    adapted, _ = adapt_to(trained, gallery(20), tmp_path / "adapted")
    assert adapted.fingerprint != trained.fingerprint
    assert rsir.load(run, device="cpu").fingerprint == trained.fingerprint
    with pytest.raises(ArchiveError, match="model"):
        Archive.open(archive, adapted)
    # The training split is copied along.
    assert (tmp_path / "adapted" / "split.csv").read_bytes() == (run / "split.csv").read_bytes()


def test_adapting_again_replaces_the_earlier_pca(run: Path, tmp_path: Path) -> None:
    once, _ = adapt_to(rsir.load(run, device="cpu"), gallery(20), tmp_path / "once")
    other, _ = adapt_to(once, gallery(15, seed=2), tmp_path / "other")
    again, _ = adapt_to(other, gallery(20), tmp_path / "again")
    first, second, third = (e.encode(gallery(4)).embedding for e in (once, other, again))
    assert not np.allclose(first, second, atol=1e-3)
    np.testing.assert_allclose(first, third, atol=1e-4)


def test_an_archive_is_searched_with_an_adapted_model(
    run: Path, coloured_classes: Path, tmp_path: Path
) -> None:
    files = sorted((coloured_classes / "sand").iterdir())
    adapted, _ = adapt_to(rsir.load(run, device="cpu"), files, tmp_path / "adapted")
    opened = Archive.create(tmp_path / "archive", adapted)
    assert opened.add(files).added == len(files)
    hits = rsir.open(tmp_path / "archive").search(files[3], k=5)
    assert Path(hits[0].source) == files[3].resolve()
    assert hits[0].distance == pytest.approx(0, abs=1e-5)
    assert opened.metric == "ncc"
    assert opened.dimension == 6


def test_unreadable_images_are_skipped_and_listed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    four_bands = np.zeros((4, 8, 8), np.uint8)
    seen: list[tuple[int, int]] = []
    adapted = adapt(
        Encoder(make(), device="cpu", batch_size=2),
        [bad, four_bands, *gallery(5)],
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert adapted.images == 5
    assert [path for path, _ in adapted.skipped] == [str(bad), "image 1"]
    assert "takes 3 bands" in adapted.skipped[1][1]
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]
    assert adapted.to_dict()["skipped"] == 2


def test_impossible_adaptations_are_refused(tmp_path: Path) -> None:
    encoder = Encoder(make(), device="cpu")
    with pytest.raises(DataError, match="none of the 0 images"):
        adapt_to(encoder, [], tmp_path / "out")
    with pytest.raises(DataError, match=r"none of the 1 images can be read.*nowhere\.png"):
        adapt_to(encoder, [tmp_path / "nowhere.png"], tmp_path / "out")
    with pytest.raises(DataError, match="do not differ"):
        adapt_to(encoder, gallery(1), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for model in (make("pooled"), make(features="fc")):
        with pytest.raises(UsageError, match=f"{model.method} .* learns nothing from a gallery"):
            adapt_to(Encoder(model, device="cpu"), gallery(3), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        adapt_to(encoder, gallery(3), tmp_path / "full")


def test_the_order_of_the_gallery_does_not_matter() -> None:
    images = gallery(12)
    adapted, expected = (Encoder(make(), device="cpu") for _ in range(2))
    expected.module.load_state_dict(adapted.module.state_dict())
    adapt(adapted, images)
    adapt(expected, images[::-1])
    np.testing.assert_allclose(
        adapted.encode(images).embedding, expected.encode(images).embedding, atol=1e-3
    )


def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: Any) -> Any:
    """(status, stdout, stderr) of the shell."""
    monkeypatch.setattr(sys, "argv", ["rsir", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return leaving.value.code or 0, *capsys.readouterr()


def test_rsir_adapt(
    run: Path,
    coloured_classes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    words = ("adapt", run, coloured_classes, tmp_path, "--out", tmp_path / "adapted")
    status, out, err = shell(capsys, monkeypatch, *words)
    assert status == 0
    assert out.startswith("adapted to 48 images, 1 skipped (pca length 6, variance kept ")
    assert out.strip().endswith(f"the model is in {tmp_path / 'adapted'}")
    assert f"skipped {tmp_path / 'bad.png'}: " in err
    assert rsir.load(tmp_path / "adapted", device="cpu").dimension == 6

    status, _, err = shell(capsys, monkeypatch, *words)
    assert status == 2
    assert "is not empty" in err
    plain = make("pooled").save(tmp_path / "plain")
    status, _, err = shell(
        capsys, monkeypatch, "adapt", plain, coloured_classes, "--out", tmp_path / "no"
    )
    assert status == 2
    assert "a pooled model" in err
