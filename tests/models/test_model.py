from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import rsir
from rsir.data.transforms import InputSpec
from rsir.errors import DataError, ModelError, UsageError
from rsir.methods import METHODS
from rsir.models.model import WEIGHTS, Model, build_model, file_sha256, load_model, resolve

SPEC = InputSpec(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), resize="crop")


def make(seed: int = 0, method: str = "dual-attention") -> Model:
    torch.manual_seed(seed)
    return build_model(
        method,
        backbone="resnet10t",
        spec=SPEC,
        classes=("lake", "wood"),
        options={"pooling": "mac"},
        training={"data": "here", "seed": seed},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make().save(tmp_path_factory.mktemp("saved"))


def test_save_and_load_keep_the_model(saved: Path) -> None:
    loaded, original = load_model(saved), make()
    assert loaded.spec == SPEC
    assert loaded.classes == ("lake", "wood")
    assert loaded.options == original.options
    assert loaded.options["pooling"] == "mac"
    assert loaded.training["seed"] == 0
    images = torch.randn(2, 3, 32, 32)
    original.module.eval()
    assert torch.equal(loaded.module(images).embedding, original.module(images).embedding)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name != "eara"])
def test_a_model_can_start_from_another_models_backbone(
    method: str, saved: Path, tmp_path: Path
) -> None:
    started = build_model(
        method, backbone="resnet10t", spec=32, classes=("a",), weights=saved / WEIGHTS
    )
    assert (started.spec.mean, started.spec.std) == (SPEC.mean, SPEC.std)
    expected = make().module.backbone.state_dict()
    found = started.module.backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_of_a_replicated_stage_the_first_copy_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    eara = build_model("eara", backbone="resnet10t", spec=SPEC, classes=("a",))
    for parameter in eara.module.backbone.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    file = eara.save(tmp_path) / WEIGHTS
    started = build_model("pooled", backbone="resnet10t", spec=32, classes=("a",), weights=file)
    images = torch.randn(2, 3, 32, 32)
    _, (first, second) = eara.module.backbone.eval()(images)
    found = started.module.backbone.eval()(images)
    assert torch.equal(found, first)
    assert not torch.equal(found, second)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_save_and_load_keep_every_method(method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classes = tuple("abc")
    original = build_model(method, backbone="resnet10t", spec=SPEC, classes=classes)
    images = torch.randn(4, 3, 32, 32)
    original.module.train()
    original.module(images)  # changes the statistics of batch norms
    original.save(tmp_path)
    loaded = load_model(tmp_path).module(images)
    for actual, expected in zip(loaded, original.module.eval()(images), strict=True):
        assert (actual is None) == (expected is None)
        assert actual is None or torch.equal(actual, expected)


def test_a_model_is_two_files_without_pickle(saved: Path) -> None:
    assert sorted(file.name for file in saved.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.slow
def test_the_fingerprint_depends_on_the_weights_alone(tmp_path: Path, saved: Path) -> None:
    mark = rsir.load(saved, device="cpu").fingerprint
    assert rsir.load(make().save(tmp_path / "again"), device="cpu").fingerprint == mark
    assert rsir.load(make(seed=1).save(tmp_path / "other"), device="cpu").fingerprint != mark
    copy = rsir.load(saved, device="cpu").save(tmp_path / "copy")
    assert rsir.load(copy, device="cpu").fingerprint == mark


def test_encode_takes_files_and_arrays_of_any_size(saved: Path, coloured_classes: Path) -> None:
    encoder = rsir.load(saved, device="cpu")
    files = sorted(coloured_classes.glob("*/*.png"))[:3]
    encoding = encoder.encode(files)
    assert encoding.embedding.shape == (3, encoder.dimension)
    assert encoding.embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encoding.embedding, axis=1), 1, rtol=1e-5)
    random = np.random.default_rng(0)
    sizes = [(32, 32), (50, 33), (1, 1), (64, 200)]
    arrays = [random.integers(0, 256, (3, *size), dtype=np.uint8) for size in sizes]
    together = encoder.encode(arrays).embedding
    for array, row in zip(arrays, together, strict=True):
        np.testing.assert_allclose(encoder.encode([array]).embedding[0], row, atol=1e-5)
    assert encoder.encode([]).embedding.shape == (0, encoder.dimension)


def test_other_bands_are_refused(saved: Path) -> None:
    with pytest.raises(DataError, match="takes 3 bands"):
        rsir.load(saved, device="cpu").encode([np.zeros((4, 32, 32), np.uint8)])


def damage(folder: Path, **changes: object) -> Path:
    card = json.loads((folder / "model.json").read_text())
    for key, value in changes.items():
        if value is None:
            del card[key]
        else:
            card[key] = value
    (folder / "model.json").write_text(json.dumps(card))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "rsir-model/9"}, "rsir-model/9.*update"),
        ({"format": "pickle"}, "not the card of an rsir model"),
        ({"weights_sha256": None}, "lacks weights_sha256"),
        ({"backbone": "resnet18"}, "changed by hand"),
        ({"fingerprint": "0"}, "changed by hand"),
    ],
)
def test_a_foreign_or_changed_card_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(damage(make().save(tmp_path), **changes))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"no rsir model: it has no model\.json"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_bytes(b"\xff\x00")
    with pytest.raises(ModelError, match="not readable as JSON"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("[1]")
    with pytest.raises(ModelError, match="not a JSON object"):
        load_model(tmp_path)


def test_damaged_or_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = make().save(tmp_path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match="damaged or was replaced"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        load_model(folder)


def test_the_message_names_unknown_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no option margins; it has: attention, pooling.*margin"):
        build_model(
            "dual-attention", backbone="resnet10t", spec=32, classes=(), options={"margins": 1}
        )


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dah", {"bits": "abc"}, "bits='abc': it must be a int"),
        ("dah", {"bits": 1.5}, "must be a int"),
        ("dah", {"bits": True}, "must be a int"),
        ("dah", {"alpha": False}, "must be a float"),
        ("dah", {"batch_norm": 1}, "must be a bool"),
        ("mlrsir-net", {"levels": [1]}, "must be a str"),
        ("dah", {"bits": 10**15}, "memory"),
        ("jsrt", {"features": "fc"}, "option features must be pca with fewer than 2 classes"),
    ],
)
def test_impossible_options_are_refused(
    method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_model(method, backbone="resnet10t", spec=32, classes=("a",), options=options)


def test_an_integer_is_accepted_as_a_float() -> None:
    made = build_model(
        "dah", backbone="resnet10t", spec=32, classes=("a",), options={"alpha": 1, "bits": 8}
    )
    assert made.options["alpha"] == 1


def test_band_statistics_come_from_the_weights() -> None:
    model = build_model("pooled", backbone="mobilenetv2_100", spec=32, classes=("a",))
    assert model.spec.mean == (0.485, 0.456, 0.406)  # timm's, of ImageNet


@pytest.fixture
def hub(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a local hub that serves the saved model as owner/name."""
    commit = "a" * 40

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            file = saved / self.path.rsplit("/", 1)[-1]
            if not self.path.startswith("/owner/name/resolve/") or not file.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hash(content):x}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield address
    server.shutdown()
    server.server_close()


def test_a_model_on_the_hub_loads_by_name(hub: str, saved: Path) -> None:
    folder = resolve("hf:owner/name")
    assert (folder / "model.json").read_bytes() == (saved / "model.json").read_bytes()
    fingerprint = json.loads((saved / "model.json").read_text())["fingerprint"]
    assert rsir.load("hf:owner/name", device="cpu").fingerprint == fingerprint


def test_a_missing_hub_model_is_an_error(hub: str) -> None:
    with pytest.raises(ModelError, match="could not be fetched"):
        resolve("hf:owner/other")
    with pytest.raises(UsageError, match="hf:owner/name"):
        resolve("hf:a/b/c/d")


@pytest.mark.slow
def test_saving_is_reproducible(tmp_path: Path) -> None:
    model = make()
    files = [model.save(tmp_path / str(n)) / WEIGHTS for n in range(8)]
    assert len({file_sha256(file) for file in files}) == 1
