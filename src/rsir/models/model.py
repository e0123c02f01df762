"""Save and load a trained model: `model.safetensors` + `model.json`, never pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from rsir.atomic import write_bytes, write_json
from rsir.data.transforms import InputSpec
from rsir.documents import read_object
from rsir.errors import ModelError, UsageError
from rsir.methods import method_type
from rsir.methods.base import Method
from rsir.methods.options import check_types, defaults_of
from rsir.nn.backbone import Backbone
from rsir.nn.hub import hub_or_cache
from rsir.version import VERSION

MODEL_FORMAT = "rsir-model/1"
WEIGHTS = "model.safetensors"
CARD = "model.json"
_KINDS = {
    "method": str, "options": dict, "backbone": str, "input": dict, "classes": list,
    "weights_sha256": str, "training": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A method with its weights, its input specification and its training record.

    method: name in `rsir.methods`; options: its options as a plain dict; backbone: name with
    options (`rsir.nn.backbone.parse_name`); classes: of the training set, in target order.
    training: origin of the weights: data set, split hash, seed, settings (JSON values).
    """

    module: Method
    method: str
    backbone: str
    spec: InputSpec
    classes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dimension(self) -> int:
        """D of the embedding."""
        return self.module.dimension

    @property
    def ranking(self) -> str:
        """The metric that ranks the embeddings."""
        return self.module.ranking

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `model.json` into `folder`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        # A single entry: safetensors writes several in random order, which changes the hash.
        statistics = ";".join(",".join(map(str, v)) for v in (self.spec.mean, self.spec.std))
        # Their own way of writing a file lets nobody but its owner read it.
        write_bytes(folder / WEIGHTS, to_bytes(state, {"mean;std": statistics}))
        weights = file_sha256(folder / WEIGHTS)
        card = {
            "format": MODEL_FORMAT,
            "rsir": VERSION,
            **self._identity(weights),
            "dimension": self.dimension,
            "ranking": self.ranking,
            "fingerprint": fingerprint(self._identity(weights)),
            "training": dict(self.training),
        }
        write_json(folder / CARD, card)
        return folder

    def _identity(self, weights: str) -> dict[str, Any]:
        """The values that determine the embeddings; `fingerprint` hashes them."""
        return {
            "method": self.method,
            "options": dict(self.options),
            "backbone": self.backbone,
            "input": dataclasses.asdict(self.spec),
            "classes": list(self.classes),
            "weights_sha256": weights,
        }


def build_model(
    method: str,
    *,
    backbone: str,
    spec: InputSpec | int,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
    weights: str | Path = "none",
    training: Mapping[str, Any] | None = None,
) -> Model:
    """A new model. `spec` may be the input size alone; the weights then give the band statistics.

    options: the method's options. Raises UsageError for unknown options, for options of another
    type, and for sizes that do not fit into memory.
    """
    kind = method_type(method)
    known = defaults_of(kind.options_type)
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise UsageError(
            f"{method} has no option {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    check_types(known, options or {})
    chosen = kind.options_type(**(options or {}))
    size, bands = (spec, 3) if isinstance(spec, int) else (spec.size, len(spec.bands))
    net = Backbone(backbone, image_size=size, bands=bands, weights=weights)
    if isinstance(spec, int):
        spec = InputSpec(size=spec, mean=net.mean, std=net.std)
    with _allocating(method):
        module = kind(net, chosen, classes=len(classes))
    return Model(
        module=module,
        method=method,
        backbone=backbone,
        spec=spec,
        classes=classes,
        options=dataclasses.asdict(chosen),
        training=dict(training or {}),
    )


def load_model(folder: str | Path) -> Model:
    """The model in `folder` (a run folder, or the copy in an archive), in evaluation mode.

    Raises ModelError if there is no model, if its format is unknown or newer, or if it is damaged:
    the weights must match the hash in `model.json`.
    """
    folder = Path(folder)
    card = read_card(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelError(f"{folder}: {CARD} is there, but {WEIGHTS} is missing")
    if file_sha256(file) != card["weights_sha256"]:
        raise ModelError(f"{file} is damaged or was replaced: its hash is not the one in {CARD}")
    try:
        spec = InputSpec(**{k: _tuple(v) for k, v in card["input"].items()})
        build = partial(
            build_model,
            card["method"],
            backbone=card["backbone"],
            spec=spec,
            classes=tuple(card["classes"]),
            options=card["options"],
            training=card["training"],
        )
        with torch.device("meta"):  # without memory for the weights
            _check_shapes(build().module.state_dict(), file)
        model = build()
        model.module.load_state_dict(load_file(file))
    except MemoryError as error:
        raise ModelError(f"{folder} does not fit into memory") from error
    except (
        KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError,
    ) as error:  # fmt: skip
        raise ModelError(f"{folder} does not fit this version of rsir: {error}") from error
    model.module.eval()
    return model


def _check_shapes(described: Mapping[str, torch.Tensor], file: Path) -> None:
    """Check that a file has the weights of a described net, before any memory is taken for it.

    Errors: RuntimeError.
    """
    with safe_open(file, "pt") as weights:
        found = {name: list(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    wanted = {name: list(tensor.shape) for name, tensor in described.items()}
    if found != wanted:
        different = sorted(
            name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
        )
        raise RuntimeError(
            f"{len(different)} of its weights do not fit its description, such as {different[0]}"
        )


def read_card(folder: str | Path) -> dict[str, Any]:
    """The contents of `model.json` in `folder`; ModelError if it is missing or not valid."""
    folder = Path(folder)
    file = folder / CARD
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}")
    if not file.is_file():
        raise ModelError(f"{folder} is no rsir model: it has no {CARD}")
    try:
        card = read_object(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is not readable as JSON: {error}") from error
    if not str(card.get("format", "")).startswith("rsir-model/"):
        raise ModelError(f"{file} is not the card of an rsir model")
    if card["format"] != MODEL_FORMAT:
        raise ModelError(
            f"{file} has format {card['format']}; this version reads {MODEL_FORMAT}: update rsir"
        )
    needed = tuple(_KINDS)
    missing = [key for key in needed if key not in card]
    if missing:
        raise ModelError(f"{file} lacks {', '.join(missing)}")
    wrong = [key for key, kind in _KINDS.items() if not isinstance(card[key], kind)]
    if wrong:
        raise ModelError(f"{file} is damaged: {', '.join(wrong)} of the wrong type")
    identity = {key: card[key] for key in needed if key != "training"}
    if card.get("fingerprint") != fingerprint(identity):
        raise ModelError(f"{file} was changed by hand: its fingerprint does not match its contents")
    return card


def resolve(name: str | Path) -> Path:
    """The folder of a model: the path itself, or the download of "hf:owner/name".

    Only `model.json` and `model.safetensors` are downloaded, once, into the Hugging Face cache.
    Raises ModelError if they cannot be downloaded.
    """
    text = str(name)
    if not text.startswith("hf:"):
        return Path(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    silence = ""
    try:
        with hub_or_cache() as silence:
            card, _ = (hf_hub_download(text.removeprefix("hf:"), file) for file in (CARD, WEIGHTS))
    except HFValidationError as error:
        raise UsageError(f"{text}: a hub model is named hf:owner/name") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{text} could not be fetched: {silence or error}") from error
    return Path(card).parent


def fingerprint(identity: Mapping[str, Any]) -> str:
    """32 hex digits that are equal only for models that give the same embeddings."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _allocating(method: str) -> Iterator[None]:
    """Raise UsageError if a layer does not fit into memory or its size overflows."""
    try:
        yield
    except (MemoryError, RuntimeError, TypeError) as error:
        # torch has no error class for failed allocations.
        if isinstance(error, MemoryError) or re.search("allocate|overflow", str(error), re.I):
            raise UsageError(
                f"{method} with these options does not fit into memory; use smaller sizes"
            ) from error
        raise


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
