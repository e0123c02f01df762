"""Searches among whole images: by file, pixels, vector and code."""

import numpy as np
import pytest

from rsir.archive import Archive, Hits
from rsir.errors import ImageError, UsageError
from rsir.images.read import read_tile
from rsir.ranking import packed, pairwise, score
from tests.support.colour_encoder import ColourEncoder


@pytest.fixture
def archive(tmp_path) -> Archive:
    return Archive.create(tmp_path / "archive", ColourEncoder())


def test_search_finds_the_image_itself_first(archive, images):
    archive.add(images)
    path = images / "forest" / "03.png"
    hits = archive.search(path, k=5)
    assert isinstance(hits, Hits)
    assert (len(hits), hits.searched, hits.query) == (5, 12, path)
    assert hits.seconds > 0
    assert hits[0].source == path.as_posix()
    assert (hits[0].distance, hits[0].score) == (0, 1)
    assert [h.score for h in hits] == [1 / (1 + h.distance) for h in hits]
    assert hits[0].properties["folder"] == "forest"
    assert hits[1:3] == [hits[1], hits[2]]
    assert path.as_posix() in repr(hits)
    assert [h.id for h in Archive.open(archive.path, ColourEncoder()).search(str(path), 5)] == [
        h.id for h in hits
    ]


def test_a_notebook_shows_hits_as_a_gallery(archive, images):
    archive.add(images)
    html = archive.search(images / "forest" / "03.png", k=5)._repr_html_()
    assert html.count("<img") >= 5
    assert "03.png" in html


def test_all_queries_for_one_image_agree(archive, images):
    archive.add(images)
    path = images / "river" / "04.png"
    pixels = read_tile(path).pixels
    vector = ColourEncoder().encode([pixels]).embedding[0]
    four = archive.search_many([path, vector, pixels, vector.astype(np.float64)], k=12)
    assert [h.id for h in four[0]] == [h.id for h in four[1]] == [h.id for h in four[3]]
    assert [h.id for h in four[0]] == [h.id for h in four[2]]
    records = list(archive.records())
    far = pairwise("euclidean", vector[None], archive.vectors([r.id for r in records]))[0]
    wanted = sorted(zip(far.tolist(), [r.id for r in records], strict=True))
    assert [(h.distance, h.id) for h in archive.search(vector, 12)] == wanted
    assert [h.id for h in archive.search(vector.tolist(), 12)] == [id for _, id in wanted]
    assert archive.search_many([], 3) == []
    assert "for a vector among 12" in repr(archive.search(vector))
    assert "for an image among 12" in repr(archive.search(pixels))


def test_codes_are_searched_by_code_or_image(tmp_path, images):
    archive = Archive.create(tmp_path / "archive", ColourEncoder("hamming", 32))
    archive.add(images)
    path = images / "river" / "04.png"
    code = ColourEncoder("hamming", 32).encode([read_tile(path).pixels]).code[0]
    hits = archive.search(code, 12)
    assert [(h.id, h.distance) for h in hits] == [
        (h.id, h.distance) for h in archive.search(path, 12)
    ]
    assert [h.score for h in hits] == [1 - h.distance / 32 for h in hits]
    assert hits[0].score == 1
    with pytest.raises(UsageError, match="uint8 codes"):
        archive.search(np.ones(32))


@pytest.mark.parametrize("metric", ["hamming", "adaptive-hamming:3"])
def test_codes_of_odd_lengths_are_indexed_and_searched(tmp_path, images, metric):
    encoder = ColourEncoder(metric, 13)
    archive = Archive.create(tmp_path / "archive", encoder)
    archive.add(images)
    archive = Archive.open(tmp_path / "archive", encoder)
    assert (archive.metric, archive.dimension) == (metric, 13)
    records = list(archive.records())
    rows = archive.vectors([r.id for r in records])
    assert rows.shape == (12, 2 if metric == "hamming" else 2 + 3 * 4)
    for path in sorted(images.rglob("*.png"))[:3]:
        encoding = encoder.encode([read_tile(path).pixels])
        query = encoding.code
        if metric != "hamming":
            query = packed(encoding.code, encoding.probabilities)
        far = pairwise(metric, query, rows)[0]
        wanted = sorted(zip(far.tolist(), [r.id for r in records], strict=True))
        for hits in (archive.search(path, 12), archive.search(query[0], 12)):
            assert [(h.distance, h.id) for h in hits] == wanted
            assert [h.score for h in hits] == [score(metric, d, bits=13) for d, _ in wanted]


def test_the_empty_archive_has_no_hits(archive, images):
    hits = archive.search(images / "river" / "04.png")
    assert list(hits) == []
    assert hits.searched == 0


@pytest.mark.parametrize(
    ("query", "k", "reason"),
    [
        (np.ones(16), 0, "k must be at least 1"),
        (np.ones(15), 1, "must have 16 columns, not 15"),
        (np.r_[np.nan, np.ones(15)], 1, "not finite"),
        (np.r_[np.inf, np.ones(15)], 1, "not finite"),
        (np.array(["a"] * 16), 1, "real numbers"),
        (np.ones((2, 16)), 1, "not a 2-D array"),
        (np.ones((3, 8, 8)), 1, "uint8 array of the bands red, green, blue"),
        (np.ones((4, 8, 8), np.uint8), 1, "uint8 array of the bands"),
        (np.ones((3, 0, 8), np.uint8), 1, "uint8 array of the bands"),
    ],
)
def test_wrong_queries_are_refused(archive, query, k, reason):
    with pytest.raises(UsageError, match=reason):
        archive.search(query, k)


def test_a_query_file_that_cannot_be_read_is_an_error(archive, tmp_path):
    with pytest.raises(ImageError, match="absent"):
        archive.search(tmp_path / "absent.png")
