"""The catalogue's facts against each other, and finding, checking and downloading sets."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import re
import sys
import tarfile
import threading
import types
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from rsir.data import folder
from rsir.data.catalog import entries as catalog
from rsir.data.catalog.check import check
from rsir.data.catalog.download import download, extract
from rsir.data.catalog.entries import ENTRIES, Archive, Citation, Entry
from rsir.data.catalog.fetch import fetch
from rsir.data.catalog.locate import locate
from rsir.errors import DataError, MissingExtraError, UsageError

TINY = Entry(
    name="tiny",
    title="Tiny set",
    classes=("dense residential", "storage tanks"),
    class_count=2,
    images=4,
    counts={"dense residential": 2, "storage tanks": 2},
    size=(8, 6),
    labels="single",
    citation=Citation("nobody", "nothing", "nowhere", 2000, None),
    home="nowhere",
    licence="not stated",
    sources="this test",
    layouts=("Tiny/Images",),
)


def picture(path: Path, seed: int, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def tiny(root: Path) -> Path:
    for i, path in enumerate(["DenseResidential/1", "DenseResidential/2", "storage_tank/1",
                              "storage_tank/2"]):  # fmt: skip
        picture(root / f"{path}.png", i)
    return root


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_facts_agree(entry: Entry) -> None:
    assert len(entry.classes) == (0 if entry.name == "satrem" else entry.class_count)
    keys = [catalog._key(name) for name in {*entry.classes, *entry.class_folders}]
    assert len(set(keys)) == len(keys)
    if entry.counts:
        assert set(entry.counts) == set(entry.class_folders)
        assert sum(entry.counts.values()) == entry.images
    assert set(entry.aliases) <= set(entry.classes)
    assert all(name == name.lower().strip() for name in entry.classes)
    for text in (entry.home, entry.licence, entry.sources, entry.citation.title):
        assert text
    assert entry.citation.doi is None or re.fullmatch(r"10\.\d{4,}/\S+", entry.citation.doi)
    assert entry.layouts


def test_the_papers_sets() -> None:
    published = {
        "ucm": (21, 2100), "satrem": (20, 3000), "nwpu-resisc45": (45, 31500),
        "siri-whu": (12, 2400), "aid": (30, 10000), "patternnet": (38, 30400),
        "whu-rs19": (19, 1005), "rsscn7": (7, 2800), "dlrsd": (17, 2100), "whdld": (6, 4940),
    }  # fmt: skip
    assert {name: (e.class_count, e.images) for name, e in ENTRIES.items()} == published


def test_get() -> None:
    assert catalog.get("UCM").name == "ucm"
    assert catalog.get("NWPU RESISC45").name == "nwpu-resisc45"
    assert catalog.get("UC Merced Land Use").name == "ucm"
    with pytest.raises(UsageError, match=r"'mnist'; there are ucm, satrem, .*whdld"):
        catalog.get("mnist")


@pytest.mark.parametrize(
    ("name", "spelling", "canonical"),
    [
        *(("aid", s, "dense residential") for s in ("DenseResidential", "dense_residential",
                                                    "denseresidential", "Dense Residential")),
        ("aid", "StorageTanks", "storage tanks"),
        ("aid", "Parking", "parking"),
        ("aid", "Park", "park"),
        ("nwpu-resisc45", "storage_tank", "storage tank"),
        ("nwpu-resisc45", "storage tanks", "storage tank"),
        ("ucm", "storagetanks", "storage tanks"),
        ("whu-rs19", "footballField", "football field"),
        ("rsscn7", "dRiverLake", "river lake"),
        ("rsscn7", "aGrass", "grass"),
        ("rsscn7", "gParking", "parking"),
        ("dlrsd", "bare-soil", "bare soil"),
        ("dlrsd", "tree", "trees"),
        ("aid", "Igloo", None),
        ("satrem", "beach", None),
    ],
)  # fmt: skip
def test_find_class(name: str, spelling: str, canonical: str | None) -> None:
    assert catalog.find_class(ENTRIES[name], spelling) == canonical


def test_torchgeo_has_what_the_catalogue_says() -> None:
    spec = importlib.util.find_spec("torchgeo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("torchgeo is not installed")
    init = Path(spec.submodule_search_locations[0], "datasets", "__init__.py").read_text()
    names = [entry.torchgeo for entry in ENTRIES.values() if entry.torchgeo]
    assert sorted(names) == ["PatternNet", "RESISC45", "UCMerced"]
    for name in names:
        assert f"'{name}'" in init


@pytest.mark.parametrize("entry", [e for e in ENTRIES.values() if e.class_folders])
def test_locate_each_layout_among_others(tmp_path: Path, entry: Entry) -> None:
    for layout in entry.layouts:
        root = tmp_path / layout.replace("/", "-")
        folders(root / layout, *(name.title().replace(" ", "") for name in entry.class_folders))
        folders(root / "Other", "cats", "dogs")
        assert locate(entry, root) == root / layout
        assert locate(entry, root / layout) == root / layout


def test_locate_under_any_name(tmp_path: Path) -> None:
    base = folders(tmp_path / "a" / "b" / "c", *ENTRIES["aid"].classes)
    assert locate(ENTRIES["aid"], tmp_path) == base
    folders(tmp_path / "copy", *ENTRIES["aid"].classes)
    assert locate(ENTRIES["aid"], tmp_path) == tmp_path / "copy"
    folders(tmp_path / "copy2", *ENTRIES["aid"].classes)
    with pytest.raises(DataError, match=r"could be 2 folders .*copy, .*copy2"):
        locate(ENTRIES["aid"], tmp_path)


def test_sets_that_share_classes_are_kept_apart(tmp_path: Path) -> None:
    folders(tmp_path / "x", *ENTRIES["aid"].classes)
    with pytest.raises(DataError, match=r"WHU-RS19 is not below .* WHU-RS19/<class>/<image>"):
        locate(ENTRIES["whu-rs19"], tmp_path)
    folders(tmp_path / "y", *ENTRIES["whu-rs19"].classes)
    assert locate(ENTRIES["whu-rs19"], tmp_path) == tmp_path / "y"
    assert locate(ENTRIES["aid"], tmp_path) == tmp_path / "x"


def test_locate_dlrsd_before_uc_merced(tmp_path: Path) -> None:
    ucm, dlrsd = ENTRIES["ucm"], ENTRIES["dlrsd"]
    merced = folders(tmp_path / "UCMerced_LandUse" / "Images", *ucm.classes)
    assert locate(dlrsd, tmp_path) == merced
    images = folders(tmp_path / "DLRSD" / "Images", *ucm.classes)
    folders(tmp_path / "DLRSD" / "Labels", *ucm.classes)
    assert locate(dlrsd, tmp_path) == images
    assert locate(ucm, tmp_path) == merced


def test_locate_and_check_flat_and_unnamed_sets(tmp_path: Path) -> None:
    picture(tmp_path / "WHDLD" / "Images" / "wh0001.png", 0)
    picture(tmp_path / "WHDLD" / "ImagesPNG" / "wh0001.png", 1)
    report = check(ENTRIES["whdld"], tmp_path)
    assert report.root == tmp_path / "WHDLD" / "Images"
    assert report.total == (1, 4940)
    assert not report.missing
    assert not report.extra
    for i in range(19):
        picture(tmp_path / "SATREM" / f"class {i}" / "1.png", i)
    report = check(ENTRIES["satrem"], tmp_path, decode=False)
    assert report.wrong == (("class folders", 19, 20),)
    assert report.total == (19, 3000)


def test_locate_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder"):
        locate(TINY, tmp_path / "gone")
    with pytest.raises(DataError, match=r"Tiny set is not below"):
        locate(TINY, tmp_path)


def test_check_a_good_set(tmp_path: Path) -> None:
    base = tiny(tmp_path / "Tiny" / "Images")
    report = check(TINY, tmp_path)
    assert report.ok
    assert report.root == base
    assert report.counts == {"dense residential": 2, "storage tanks": 2}
    assert report.sizes == {(8, 6): 4}
    assert report.lines == [f"tiny: ok — 4 images in 2 folders, all decoded: {base}"]
    assert not check(TINY, tmp_path, decode=False).sizes


def test_check_notes(tmp_path: Path) -> None:
    base = tiny(tmp_path / "Tiny" / "Images")
    picture(base / "DenseResidential" / "2.png", 0)
    picture(base / "storage_tank" / "2.png", 9, (4, 5))
    report = check(TINY, tmp_path)
    assert report.ok
    assert report.duplicates == (("DenseResidential/1.png", "DenseResidential/2.png"),)
    assert report.lines[1:] == [
        "note: published at 8×6, found 1 of 4×5",
        "note: same content: DenseResidential/1.png = DenseResidential/2.png",
    ]


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    base = tiny(tmp_path / "Tiny" / "Images")
    (base / "DenseResidential" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    for path in (base / "storage_tank").iterdir():
        path.unlink()
    picture(base / "cats" / "1.png", 7)
    picture(base / "DenseResidential" / "3.png", 8)
    report = check(TINY, tmp_path)
    assert not report.ok
    assert report.missing == ("storage tanks",)
    assert report.extra == ("cats",)
    assert report.wrong == (("dense residential", 3, 2),)
    assert report.total == (3, 4)
    assert [path for path, _ in report.corrupt] == ["DenseResidential/2.png"]
    text = "\n".join(report.lines)
    for line in ("tiny: not as published — 3 images", "missing: 1 class (storage tanks)",
                 "not of this set: 1 folder (cats)", "dense residential: 3, 2 expected",
                 "in all: 3 images, 4 expected", "corrupt: DenseResidential/2.png: "):  # fmt: skip
        assert line in text


def test_check_aid(data_root: Path) -> None:
    report = check(ENTRIES["aid"], data_root, decode=False)
    assert report.ok
    assert report.counts == ENTRIES["aid"].counts
    assert ("Industrial/industrial_203.jpg", "Industrial/industrial_205.jpg") in report.duplicates


def test_check_ucm(data_root: Path) -> None:
    report = check(ENTRIES["ucm"], data_root, decode=False)
    assert report.ok
    assert report.root == data_root / "UCMerced_LandUse" / "Images"
    assert ("airplane/airplane01.jpg", "airplane/airplane02.jpg") in report.duplicates
    table = folder.load(
        data_root / "UCMerced_LandUse",
        labels=data_root / "UCMerced_LandUse" / "LandUse_Multilabeled.txt",
    )
    dlrsd = ENTRIES["dlrsd"]
    assert [catalog.find_class(dlrsd, name) for name in table.classes] == list(dlrsd.classes)


# ---- downloads


class Server(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://example.org/x.zip")
            self.end_headers()
            return
        if self.path == "/near":
            self.send_response(302)
            self.send_header("Location", "/set.zip")
            self.end_headers()
            return
        body = self.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (99 if "short" in self.path else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tiny(tmp_path_factory.mktemp("served") / "Tiny" / "Images").parent.parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root))
    Server.files = {"set.zip": packed.getvalue(), "short.zip": packed.getvalue(), "no.zip": b"no"}
    Server.files["large.zip"] = bytes(3 << 20)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def from_server(url: str, **archive: object) -> Entry:
    return dataclasses.replace(TINY, archive=Archive(url, "set.zip", **archive))  # type: ignore[arg-type]


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
    gone = dataclasses.replace(entry, archive=Archive("https://nowhere.invalid/x", "x"))
    assert fetch(gone, tmp_path / "data") == base


def test_fetch_does_not_overwrite(server: str, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with pytest.raises(DataError, match=r"tiny exists but is not Tiny set"):
        fetch(from_server(f"{server}/set.zip"), tmp_path)


@pytest.mark.parametrize(
    ("path", "archive", "message"),
    [
        ("none.zip", {}, "the server answers 404"),
        ("set.zip", {"size": 10}, "bytes came, not "),
        ("set.zip", {"size": 10**6}, "bytes came, not "),
        ("large.zip", {"size": 10}, "more bytes came, not 10"),
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
    with pytest.raises(DataError, match="leads out of the archive"):
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
        with pytest.raises(DataError, match=r"leads out|cannot be unpacked"):
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


def test_fetch_by_hand_only(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cannot be downloaded. Get it from https://captain.*AID/<"
    ):
        fetch(ENTRIES["aid"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match=r"lay it out as WHDLD/Images/<image> below"):
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


def test_download_without_pooch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rsir\[datasets\]'"):
        download("https://nowhere.invalid/x", tmp_path / "x")
