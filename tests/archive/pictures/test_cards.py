"""Pages of hits: they are complete, trust nothing from outside, and never crash."""

from __future__ import annotations

import base64
import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from rsir.archive.pictures.cards import Section, cards, contact_sheet, page
from rsir.geo.georeference import ignore_not_georeferenced
from rsir.store.records.record import Record
from rsir.types import Hit

SQUARE = {"type": "Polygon", "coordinates": [[[9, 48], [11, 48], [11, 50], [9, 50], [9, 48]]]}


class Parser(HTMLParser):
    """Collects tags and text; fails if tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(html: str) -> Parser:
    parser = Parser()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return parser


@pytest.fixture
def hits(tmp_path):
    found = []
    for i in range(3):
        path = tmp_path / f"chip{i}.png"
        Image.fromarray(np.full((300, 600, 3), 80 * i, np.uint8)).save(path)
        found.append(
            Hit(f"id{i}", 1 - i / 10, i / 10, path.as_posix(), SQUARE,
                datetime(2021, 7, 14, tzinfo=UTC), {"label": f"class {i}"})
        )  # fmt: skip
    return found


def test_a_card_shows_everything(hits):
    parser = parsed(cards(hits))
    for text in (
        "1. chip0.png",
        "2. chip1.png",
        "score 0.9",
        "distance 0.1",
        "class 2",
        "49.00000° N, 10.00000° E",
        "2021-07-14",
        hits[0].source.rsplit("/", 1)[0],
    ):
        assert text in parser.text
    pictures = [attrs for tag, attrs in parser.seen if tag == "img"]
    assert [attrs["alt"] for attrs in pictures] == [
        f"Result {i}: chip{i - 1}.png" for i in (1, 2, 3)
    ]
    data = base64.b64decode(pictures[1]["src"].removeprefix("data:image/jpeg;base64,"))
    thumbnail = Image.open(io.BytesIO(data))
    assert thumbnail.size == (256, 128)
    assert thumbnail.getpixel((9, 9)) == pytest.approx((80, 80, 80), abs=2)


def test_the_page_loads_nothing(hits):
    html = page(Section(hits, took=0.01234, searched=50), title="Places")
    assert html.startswith("<!doctype html>")
    parser = parsed(html)
    assert "3 results of 50 images in 0.0123 s" in parser.text
    assert "Query" not in parser.text
    for tag, attrs in parser.seen:
        assert tag not in ("script", "link", "iframe")
        for key in ("src", "href"):
            assert attrs.get(key, "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?:", html)
    assert "color-scheme: light dark" in html
    assert ("html", {"lang": "en"}) in parser.seen


def test_the_query_comes_first(hits, tmp_path):
    html = page(Section(hits[:1], query=tmp_path / "chip2.png"))
    assert html.index("Query: chip2.png") < html.index("1. chip0.png")
    assert "1 result</p>" in html
    gone = page(Section(hits[:1], query=tmp_path / "gone.png"))
    assert "the file no longer exists" in gone


def test_nothing_from_outside_is_trusted(tmp_path):
    folder = tmp_path / "<b onclick='x'>"
    folder.mkdir()
    path = folder / '"><script>alert(1)<'
    Image.new("RGB", (4, 4)).save(path, "PNG")
    evil = "<script>alert(1)</script>"
    hostile = [
        Hit("a", 1, 0, path.as_posix(), None, None, {evil: evil, "x": "{{ 7 * 7 }}", "n": None}),
        Hit("b", 1, 0, f"/nowhere/{evil}.png"),
    ]
    for html in (cards(hostile), page(Section(hostile, query=path), title=evil)):
        assert "<script" not in html
        assert "onclick='" not in html
        parser = parsed(html)
        assert not any("onclick" in attrs for _, attrs in parser.seen)
        assert "{{ 7 * 7 }}" in parser.text  # and not 49: data is never a template
        assert evil in parser.text


def test_unreadable_sources_show_the_reason(tmp_path):
    (tmp_path / "page.jpg").write_bytes(b"<html>404</html>")
    sources = ["/nowhere/a.png", str(tmp_path / "page.jpg"), "s3://bucket/key.tif", "",
               "/nowhere/caf\udce9.png"]  # fmt: skip
    html = page(Section([Hit(str(i), 1, 0, source) for i, source in enumerate(sources)]))
    html.encode()  # can be written to a file
    parser = parsed(html)
    assert not [tag for tag, _ in parser.seen if tag == "img"]
    for reason in ("the file no longer exists", "web page", "not on this machine", "UTF-8"):
        assert reason in parser.text
    labels = [attrs.get("aria-label") for _, attrs in parser.seen]
    assert "No picture of a.png" in labels


def test_no_hits_and_odd_footprints(hits):
    assert "Nothing found." in cards([])
    assert "0 results" in page(Section([]))
    odd = [
        None,
        {"type": "Polygon", "coordinates": []},
        {"type": "GeometryCollection", "geometries": []},
        {"type": "MultiPolygon", "coordinates": [[[[-3, -2], [-1, -2], [-1, -4], [-3, -2]]]]},
        {"type": "Point", "coordinates": [7, 8, 100]},
    ]
    html = cards([Hit("x", 1, 0, hits[0].source, footprint) for footprint in odd])
    assert html.count("°") == 4
    assert "3.00000° S, 2.00000° W" in html
    assert "8.00000° N, 7.00000° E" in html


def test_contact_sheet(hits, tmp_path):
    hits = [*hits, Hit("gone", 0.1, 9, "/nowhere/a.png")]
    sheet = contact_sheet(tmp_path / "chip1.png", hits, side=64)
    assert sheet.mode == "RGB"
    assert sheet.size == (4 + 5 * 68, 64 + 8 + 14)
    middle = [sheet.getpixel((4 + i * 68 + 32, 36)) for i in range(5)]
    assert middle == [(80,) * 3, (0,) * 3, (80,) * 3, (160,) * 3, (210,) * 3]
    assert contact_sheet(None, [], side=64).size[1] == 86


@pytest.fixture
def scene(tmp_path):
    """Four bands of 16 bits in four quarters of 100 pixels each: red, green, blue and infrared."""
    ignore_not_georeferenced()
    pixels = np.full((4, 200, 200), 1000, np.uint16)
    for band, (row, column) in enumerate(((0, 0), (0, 100), (100, 0), (100, 100))):
        pixels[band, row : row + 100, column : column + 100] = 3000
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", driver="GTiff", count=4, width=200, height=200,
                       dtype="uint16", crs="EPSG:32633",
                       transform=Affine(10, 0, 6e5, 0, -10, 5e6)) as file:  # fmt: skip
        file.write(pixels)
    return path.as_posix()


def tile(source, window, bands=("red=1", "green=2", "blue=3"), stretch=None, **more):
    stretch = stretch or "range:" + ",".join(["1000,3000"] * len(bands))
    properties = {"window": list(window), "bands": list(bands), "stretch": stretch, **more}
    return Hit(f"{window}", 0.9, 0.1, source, None, None, properties, 99.995)


def colours(html):
    """The middle pixel of each picture."""
    found = []
    for data in re.findall(r'src="data:image/jpeg;base64,([^"]*)"', html):
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        found.append(picture.getpixel((picture.width // 2, picture.height // 2)))
    return found


def test_a_tile_is_its_window_of_the_scene(scene):
    hits = [tile(scene, (0, 0, 100, 100)), tile(scene, (100, 0, 100, 100)),
            tile(scene, (0, 100, 100, 100)), tile(scene, (100, 100, 100, 100)),
            tile(scene, (100, 100, 100, 100), ("nir=4", "red=1", "green=2", "blue=3")),
            tile(scene, (100, 100, 100, 100), ("nir=4", "swir=1", "cirrus=2")),
            tile(scene, (100, 100, 100, 100), ("nir=4",)),
            tile(scene, (100, 100, 100, 100), ("nir=4", "red=1"))]  # fmt: skip
    html = cards(hits)
    seen = colours(html)
    for found, wanted in zip(
        seen,
        [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (0, 0, 0), (255, 0, 0),
         (255,) * 3, (255,) * 3],
        strict=True,
    ):  # fmt: skip
        assert found == pytest.approx(wanted, abs=6)
    text = parsed(html).text
    assert "2. scene.tif at 100, 0" in text
    assert "nearer than 99.995 % of random pairs" in text
    sheet = contact_sheet(None, hits[:2], side=64)
    assert [sheet.getpixel((4 + i * 68 + 32, 36)) for i in range(2)] == [(255, 0, 0), (0, 255, 0)]


def test_a_tile_that_extends_beyond_its_scene_is_padded(scene):
    html = cards([tile(scene, (120, 120, 100, 100), ("nir=4",))])
    assert colours(html) == [pytest.approx((255,) * 3, abs=6)]
    sheet = contact_sheet(None, [tile(scene, (120, 120, 100, 100), ("nir=4",))], side=100)
    # The last fifth of the square, which starts at (6, 6), is outside the scene.
    assert [sheet.getpixel((6 + i, 6 + i)) for i in (75, 85)] == [(255,) * 3, (0,) * 3]


def test_a_query_may_be_a_tile_or_pixels(scene, hits):
    query = tile(scene, (0, 0, 100, 100))
    html = page(Section(hits[:1], query=query))
    assert "Query: scene.tif at 0, 0" in parsed(html).text
    assert colours(html)[0] == pytest.approx((255, 0, 0), abs=6)
    blue = np.zeros((3, 50, 60), np.uint8)
    blue[2] = 255
    html = page(Section(hits[:1], query=blue, name="a window of <b>"))
    assert "Query: a window of <b>" in parsed(html).text
    assert colours(html)[0] == pytest.approx((0, 0, 255), abs=6)
    record = Record("a", scene, "", properties=dict(query.properties))
    assert colours(page(Section([], query=record)))[0] == pytest.approx((255, 0, 0), abs=6)


def test_unreadable_tiles_show_the_reason(scene, tmp_path):
    gone = (tmp_path / "gone.tif").as_posix()
    for hit, reason in (
        (tile(gone, (0, 0, 9, 9)), "no such file"),
        (tile(scene, (500, 0, 9, 9)), "is not in its"),
        (tile(scene, (0, 0, 9, 9), ("swir",)), "no band"),
        (tile(scene, (0, 0, 9, 9), stretch="loud"), "loud"),
        (tile(scene, (0, 0, 9, 9), stretch="range:1,2,3,4"), "pairs"),
    ):
        html = cards([hit])
        assert not colours(html)
        assert reason in parsed(html).text


@pytest.mark.parametrize(
    "change",
    [{"window": None}, {"window": [1, 2, 3]}, {"window": ["a", 0, 1, 1]}, {"window": 5},
     {"bands": None}, {"bands": []}, {"bands": [1]}, {"bands": "red"}, {"bands": ["red", 2]},
     {"stretch": None}, {"stretch": 3}],
    ids=str,
)  # fmt: skip
def test_an_image_with_invalid_tile_properties_is_shown_whole(change, hits):
    properties = dict(tile(hits[1].source, (0, 0, 9, 9)).properties) | change
    html = cards([Hit("a", 1, 0, hits[1].source, None, None, properties)])
    assert colours(html) == [pytest.approx((80, 80, 80), abs=2)]
