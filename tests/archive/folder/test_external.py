"""The model of an archive of external embeddings."""

import pytest

from rsir.archive.folder.external import ExternalEncoder, is_external
from rsir.errors import ModelError, UsageError


def test_a_saved_model_comes_back(tmp_path):
    saved = ExternalEncoder("clay 1.5/ü", "adaptive-hamming:4", 12)
    saved.save(tmp_path / "new")
    loaded = ExternalEncoder.load(tmp_path / "new")
    assert (loaded.name, loaded.ranking, loaded.dimension) == (saved.name, saved.ranking, 12)
    assert loaded.fingerprint == saved.fingerprint


def test_models_of_rsir_are_not_external(tmp_path):
    assert ExternalEncoder.load(tmp_path) is None
    (tmp_path / "model.json").write_text('{"format": "rsir-model/1"}')
    assert ExternalEncoder.load(tmp_path) is None
    assert not is_external("0123abcd")


def test_a_damaged_card_is_an_error(tmp_path):
    (tmp_path / "model.json").write_text('{"format": "rsir-external/1", "dimension": 4}')
    with pytest.raises(ModelError, match="damaged"):
        ExternalEncoder.load(tmp_path)


def test_fingerprints_differ_by_name_metric_and_dimension():
    models = [("a", "cosine", 4), ("b", "cosine", 4), ("a", "euclidean", 4), ("a", "cosine", 5)]
    fingerprints = {ExternalEncoder(*model).fingerprint for model in models}
    assert len(fingerprints) == len(models)
    assert all(map(is_external, fingerprints))


@pytest.mark.parametrize("model", [(" ", "cosine", 4), ("a", "nearest", 4), ("a", "cosine", 0)])
def test_wrong_arguments_are_refused(model):
    with pytest.raises(UsageError):
        ExternalEncoder(*model)
