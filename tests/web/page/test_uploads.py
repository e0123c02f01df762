"""Storing, reading and deleting uploaded images."""

from __future__ import annotations

import os
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("nicegui", reason="the page needs the extra 'web'")

from rsir.archive import Archive
from rsir.errors import UsageError
from rsir.web.page.uploads import Uploads
from rsir.web.problems import ForbiddenError, NotFoundError
from tests.support.colour_encoder import ColourEncoder


def test_uploads_are_stored_under_the_hash_of_their_content(tmp_path):
    uploads = Uploads(tmp_path / "deep" / "uploads")
    token = uploads.store(b"image")
    assert uploads.store(b"image") == token != uploads.store(b"other")
    assert Uploads(uploads.folder).read(token) == b"image"
    assert uploads.folder.stat().st_mode & 0o777 == 0o700
    assert (uploads.folder / token).stat().st_mode & 0o777 == 0o600
    uploads.delete(token)
    uploads.delete(token)
    with pytest.raises(NotFoundError, match="24 hours"):
        uploads.read(token)


def test_uploads_are_deleted_after_their_hours(tmp_path):
    uploads = Uploads(tmp_path, hours=1)
    old, fresh = uploads.store(b"old"), uploads.store(b"fresh")
    past = datetime.now().timestamp() - 3601
    os.utime(tmp_path / old, (past, past))
    with pytest.raises(NotFoundError):
        uploads.read(old)
    uploads.delete_old()
    assert [path.name for path in tmp_path.iterdir()] == [fresh]
    os.utime(tmp_path / fresh, (past, past))
    assert uploads.store(b"fresh") == fresh  # uploaded again: its hours begin again
    assert uploads.read(fresh) == b"fresh"


def test_the_oldest_uploads_make_room(tmp_path):
    uploads = Uploads(tmp_path, most_bytes=25)
    tokens = []
    for i in range(4):
        tokens.append(uploads.store(bytes([i]) * 10))
        os.utime(tmp_path / tokens[-1], (1e9 + i, datetime.now().timestamp() - 10 + i))
    uploads.delete_old()
    assert {path.name for path in tmp_path.iterdir()} == set(tokens[2:])


def test_the_number_of_uploads_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("rsir.web.page.uploads.MOST_FILES", 3)
    uploads = Uploads(tmp_path)
    for i in range(6):
        token = uploads.store(bytes([i]))
        os.utime(tmp_path / token, (1e9, datetime.now().timestamp() - 10 + i))
    assert len(list(tmp_path.iterdir())) == 3
    assert uploads.read(token) == bytes([5])


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ForbiddenError, match="XDG_CACHE_HOME"):
        Uploads(tmp_path / "file" / "uploads").store(b"image")


def test_a_token_is_no_path(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    uploads = Uploads(tmp_path / "uploads")
    uploads.store(b"image")
    for token in ("../secret", str(tmp_path / "secret"), "", "A" * 32, "a" * 32 + "\n"):
        with pytest.raises(UsageError):
            uploads.read(token)
        with pytest.raises(UsageError):
            uploads.delete(token)
    assert (tmp_path / "secret").exists()


def test_deleting_old_uploads_without_a_folder_does_nothing(tmp_path):
    Uploads(tmp_path / "none").delete_old()
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_uploads_come_from_the_page_alone(tmp_path, monkeypatch):
    from starlette.testclient import TestClient

    from rsir.web.app import create_app

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    archive = Archive.create(tmp_path / "a", ColourEncoder())
    for _ in range(2):  # a second application in one process has a page, too
        with TestClient(create_app({"a": archive})) as client:
            assert "rsir" in client.get("/").text
            # A form of another site could send these.
            for kind in ("text/plain", "multipart/form-data; boundary=x", ""):
                refused = client.post("/page/uploads", content=data, headers={"content-type": kind})
                assert refused.status_code == 415
            kind = {"content-type": "application/octet-stream"}
            taken = client.post("/page/uploads", content=data, headers=kind)
            assert taken.status_code == 200
            stored = Uploads(tmp_path / "rsir" / "uploads").read(taken.json()["token"])
            assert stored == data
            bad = client.post("/page/uploads", content=b"no image", headers=kind)
            assert (bad.status_code, bad.json()["type"]) == (422, "/problems/image")
