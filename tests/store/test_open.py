"""The names of stores."""

from __future__ import annotations

import pytest

from rsir.errors import UsageError
from rsir.store.open import without_secrets


def test_the_name_of_a_store_without_secrets():
    name = without_secrets("milvus://me:secret@host:1234/tiles?token=hidden")
    assert name == "milvus://host:1234/tiles"
    assert without_secrets("s3://bucket/tiles.lance") == "s3://bucket/tiles.lance"
    with pytest.raises(UsageError, match="no store is known"):
        without_secrets("ftp://host/x")
