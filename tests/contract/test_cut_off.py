"""An archive on a Milvus cluster whose creation was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsir.archive import Archive
from rsir.errors import ArchiveError
from rsir.store.milvus.store import MilvusStore
from rsir.store.open import exists
from tests.support.colour_encoder import ColourEncoder
from tests.support.milvus_server import Server


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["the collection is made", "the store is made"])
def test_a_second_creation_uses_its_collection(
    tmp_path: Path, milvus_server: Server, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    uri = milvus_server.uri(f"cut_off_{len(step)}")
    real = MilvusStore._ready

    def cut(store: MilvusStore) -> MilvusStore:
        if step == "the store is made":
            real(store)
        raise Cut

    assert not exists(uri)
    with monkeypatch.context() as patch:
        patch.setattr(MilvusStore, "_ready", cut)
        with pytest.raises(Cut):
            Archive.create(tmp_path / "new", ColourEncoder(), store=uri)
    assert exists(uri)
    with pytest.raises(ArchiveError, match="exists already"):
        Archive.create(tmp_path / "other", ColourEncoder(), store=uri)
    assert not (tmp_path / "other").exists()
    with pytest.raises(ArchiveError, match="for another model"):
        Archive.create(tmp_path / "new", ColourEncoder("cosine", 8), store=uri)
    Archive.create(tmp_path / "new", ColourEncoder(), store=uri)
    assert len(Archive.open(tmp_path / "new").search([0.0] * 16, 3)) == 0
