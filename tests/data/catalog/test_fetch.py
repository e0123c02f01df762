"""Fetching image sets: from an address, through torchgeo, or by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import types
from pathlib import Path

import pytest

from rsir.data.catalog.check import check
from rsir.data.catalog.entries import ENTRIES, Download, Entry
from rsir.data.catalog.fetch import fetch
from rsir.errors import DataError, MissingExtraError
from tests.support.image_sets import TINY, Server, tiny


def from_server(url: str, **archive: object) -> Entry:
    return dataclasses.replace(TINY, archive=Download(url, "set.zip", **archive))  # type: ignore[arg-type]


def test_fetch(server: str, tmp_path: Path) -> None:
    body = Server.files["set.zip"]
    entry = from_server(
        f"{server}/set.zip", size=len(body), sha256=hashlib.sha256(body).hexdigest()
    )
    seen: list[tuple[int, int | None]] = []
    base = fetch(entry, tmp_path / "data", progress=lambda n, of: seen.append((n, of)))
    assert base == tmp_path / "data" / "tiny" / "Tiny" / "Images"
    assert seen[-1] == (len(body), len(body))
    assert check(entry, tmp_path).ok
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["tiny"]
    gone = dataclasses.replace(entry, archive=Download("https://nowhere.invalid/x", "x"))
    assert fetch(gone, tmp_path / "data") == base


def test_fetch_does_not_overwrite(server: str, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with pytest.raises(DataError, match=r"tiny exists but is not Tiny set"):
        fetch(from_server(f"{server}/set.zip"), tmp_path)


@pytest.mark.parametrize(
    ("path", "archive", "message"),
    [
        ("none.zip", {}, "the server responds 404"),
        ("set.zip", {"size": 10}, r"received \d+ bytes, not 10;"),
        ("set.zip", {"size": 10**6}, "bytes, not 1000000"),
        ("large.zip", {"size": 10}, "received more than 10 bytes"),
        ("set.zip", {"sha256": "0" * 64}, "the SHA-256 is not 0{64}; the file"),
        ("short.zip", {}, "cannot be downloaded .*99 more expected"),
        ("no.zip", {}, "neither a zip nor a tar file"),
    ],
)
def test_failed_downloads_leave_nothing(
    server: str, tmp_path: Path, path: str, archive: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fetch(from_server(f"{server}/{path}", **archive), tmp_path)
    assert not list(tmp_path.iterdir())


def test_fetch_by_hand_only(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cannot be downloaded. Get it from https://captain.*AID/<"
    ):
        fetch(ENTRIES["aid"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match=r"unpack it as WHDLD/Images/<image> below"):
        fetch(ENTRIES["whdld"], tmp_path)


def test_fetch_through_torchgeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []

    def dataset(*, root: Path, download: bool, checksum: bool) -> None:
        calls.append({"root": root, "download": download, "checksum": checksum})
        if len(calls) > 1:
            raise RuntimeError("File not found or corrupted.")
        tiny(root / "Tiny" / "Images")

    module = types.ModuleType("torchgeo.datasets")
    module.Fake = dataset  # type: ignore[attr-defined]
    package = types.ModuleType("torchgeo")
    package.datasets = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchgeo", package)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", module)
    entry = dataclasses.replace(TINY, torchgeo="Fake")
    assert fetch(entry, tmp_path / "a") == tmp_path / "a" / "Tiny" / "Images"
    assert calls == [{"root": tmp_path / "a", "download": True, "checksum": True}]
    with pytest.raises(DataError, match=r"torchgeo could not download it \(File not found"):
        fetch(entry, tmp_path / "b")


def test_fetch_without_torchgeo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo", None)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rsir\[datasets\]'"):
        fetch(ENTRIES["ucm"], tmp_path)
