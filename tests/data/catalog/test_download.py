"""Downloads and unpacked archives: what is allowed, checked and refused."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from rsir.data.catalog.download import download, extract
from rsir.errors import DataError, MissingExtraError, UsageError
from tests.support.image_sets import Server, tiny


def test_unreachable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded"):
        download("http://127.0.0.1:9/x", tmp_path / "x")


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "https://", "x",
            "http://localhost.example.org/", "http://127.0.0.1.example.org/"]
)  # fmt: skip
def test_only_https(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="only https"):
        download(url, tmp_path / "x")


def test_redirections(server: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"example.org.* only https"):
        download(f"{server}/away", tmp_path / "x")
    download(f"{server}/near", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == Server.files["set.zip"]


def test_download_without_pooch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rsir\[datasets\]'"):
        download("https://nowhere.invalid/x", tmp_path / "x")


def test_extract_tar(tmp_path: Path) -> None:
    tiny(tmp_path / "in")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", "in")
    extract(tmp_path / "x.tar.gz", tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4
    with pytest.raises(DataError, match=r"exists"):
        extract(tmp_path / "x.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "a\\..\\..\\evil"])
def test_zip_members_outside(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good", "1")
        archive.writestr(name, "2")
    with pytest.raises(DataError, match="would lie outside the new folder"):
        extract(tmp_path / "x.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_links_outside(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "x.tar", "w") as packed:
        member = tarfile.TarInfo("link")
        member.type = tarfile.SYMTYPE
        member.linkname = "../../evil"
        packed.addfile(member)
        packed.addfile(tarfile.TarInfo("../evil"))
    for name in ("x.zip", "x.tar"):
        with pytest.raises(DataError, match=r"would lie outside|cannot be unpacked"):
            extract(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_damaged_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "content " * 100)
    body = bytearray((tmp_path / "x.zip").read_bytes())
    body[60] ^= 255
    (tmp_path / "x.zip").write_bytes(body)
    with pytest.raises(DataError, match="cannot be unpacked"):
        extract(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()
