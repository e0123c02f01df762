"""The page with all figures, also with hostile names."""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot

from rsir.errors import MissingExtraError, UsageError
from rsir.evaluation.evaluate import EvaluationDetails
from rsir.evaluation.leakage import Leakage
from rsir.figures import HeatMap, chosen_queries, write
from tests.support.reports import details_of, labelled, report_of


class Parser(HTMLParser):
    """Collects tags and text; asserts that all tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


HOSTILE = "<script>alert(1)</script> $x^2 & \"q\" 'a' \\frac ../.. \n %s {{ 7 * 7 }} 林"


@pytest.mark.slow
def test_a_full_report_with_hostile_names(several, tmp_path) -> None:
    classes = (HOSTILE, *several.queries.classes[1:])
    images = dataclasses.replace(several.queries, classes=classes)
    details = dataclasses.replace(several, queries=images, gallery=images)
    heat = HeatMap(np.zeros((3, 8, 8), np.uint8), np.eye(8, dtype=np.float32))
    report = report_of(
        details, ranking="hamming", bits=6, skipped=[(f"{HOSTILE}.png", "is <b>cut</b> off")],
        model={"method": HOSTILE, "options": {"x": [HOSTILE]}}, best={"map": 0.6},
        worst={"map": 0.4}, leakage=Leakage(None, True, (HOSTILE,), ()),
    )  # fmt: skip
    heat_maps = {choice.row: heat for choice in chosen_queries(details)[:2]}
    before = dict(mpl.rcParams)
    files = write(report, details, tmp_path / "new" / "a", heat_maps=heat_maps)
    assert dict(mpl.rcParams) == before
    assert not pyplot.get_fignums()
    names = [file.name for file in files]
    assert len(set(names)) == len(names)
    assert {"precision-recall.svg", "retrieved.png", "hamming-radius.png", "classes.svg"} <= set(
        names
    )
    assert {"confusion.png", "embeddings.png", "strip-best.png", "heat-best.png"} <= set(names)
    assert {"confusion.svg", "embeddings.svg", "retrieved.svg", "hamming-radius.svg"} <= set(names)
    assert all(re.fullmatch(r"[a-z0-9-]+\.(png|svg|html)", name) for name in names)
    assert sorted(p.name for p in (tmp_path / "new" / "a").iterdir()) == sorted(names)

    html = files[-1].read_text("utf-8")
    page = Parser(html)
    assert not {"script", "link", "iframe", "b"} & {tag for tag, _ in page.seen}
    images_shown = [attributes for tag, attributes in page.seen if tag == "img"]
    assert len(images_shown) == sum(name.endswith(".png") for name in names)
    assert all(a["src"].startswith("data:image/") and a["alt"] for a in images_shown)
    for _, attributes in page.seen:
        assert not {"onload", "onerror", "style"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")
    assert "//" not in re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", html)
    (policy,) = [a["content"] for _, a in page.seen if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    assert "<script>alert(1)</script>" in page.text
    assert "49" not in re.findall(r"%s (\S+)", page.text)
    assert f"{report.metrics['map']:.4f}" in page.text
    assert "0.2500 – 0.7500" in page.text
    assert "0.4000 – 0.6000" in page.text
    assert "is <b>cut</b> off" in page.text
    assert "leakage" in page.text
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {a["href"][1:] for _, a in page.seen if "href" in a} <= set(ids)

    again = write(report, details, tmp_path / "b", heat_maps=heat_maps)
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]


@pytest.mark.slow
def test_a_report_of_one_query_of_one_class(pictures, tmp_path) -> None:
    images = labelled(pictures, [0, 0], ("only",))
    details = details_of(images)
    assert details.nearest.shape == (2, 1)
    query = EvaluationDetails(
        images.subset([0]), images.subset([1]), details.query_embeddings[:1],
        details.gallery_embeddings[1:], {"map": np.ones(1)}, np.zeros((1, 1), np.int64),
        details.distances[:1], np.ones((1, 1)),
    )  # fmt: skip
    names = {file.name for file in write(report_of(query), query, tmp_path)}
    assert not any(name.startswith("hamming-radius") for name in names)
    assert {"strip-best.png", "confusion.png", "embeddings.png", "report.html"} <= names


def test_without_nearest_images_there_are_no_strips(single, tmp_path) -> None:
    bare = dataclasses.replace(
        single, nearest=single.nearest[:, :0], distances=single.distances[:, :0]
    )
    names = {file.name for file in write(report_of(bare, curves={}), bare, tmp_path)}
    pictures = {"classes.png", "classes.svg", "embeddings.png", "embeddings.svg"}
    assert names == pictures | {"report.html"}


def test_a_file_as_output_folder_is_refused(single, tmp_path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="taken is a file"):
        write(report_of(single), single, tmp_path / "taken")


@pytest.mark.parametrize("missing", ["matplotlib", "sklearn"])
def test_a_missing_library_names_the_command(single, tmp_path, monkeypatch, missing) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rsir\[figures\]'"):
        write(report_of(single), single, tmp_path / "out")
    assert not (tmp_path / "out").exists()
