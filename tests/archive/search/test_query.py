"""Queries: what they refuse, and what they say about themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsir.archive import ByFile, ById, ByWindow, Examples
from rsir.archive.search.query import ByPath, ByPixels, ByVector, as_query
from rsir.errors import UsageError

PIXELS = np.zeros((3, 4, 5), np.uint8)
VECTOR = np.zeros(7, np.float32)
WINDOW = ByWindow("scene.tif", window=(0, 0, 5, 5))
EXAMPLES = Examples(["a.png", ById("x")], [ById("y"), WINDOW], VECTOR)


@pytest.mark.parametrize(
    ("given", "type_", "kind", "holds_image", "ids", "sources", "text"),
    [
        (ById("x"), ById, "id", False, {"x"}, set(), "the tile x"),
        ("a.png", ByPath, "file", True, set(), set(), "a.png"),
        (Path("a.png"), ByPath, "file", True, set(), set(), "a.png"),
        (ByFile("a.tif", ("1",)), ByFile, "file", True, set(), set(), "a.tif"),
        (WINDOW, ByWindow, "window", True, set(), {"scene.tif"}, "a window of scene.tif"),
        (PIXELS, ByPixels, "image", True, set(), set(), "an image"),
        (VECTOR, ByVector, "vector", False, set(), set(), "a vector"),
        ([0.5, 0.25], ByVector, "vector", False, set(), set(), "a vector"),
        (EXAMPLES, Examples, "examples", True, {"x", "y"}, {"scene.tif"},
         "2 examples and 2 counterexamples"),
        (Examples([ById("x"), VECTOR]), Examples, "examples", False, {"x"}, set(),
         "2 examples and 0 counterexamples"),
        (Examples(query=PIXELS), Examples, "examples", True, set(), set(),
         "0 examples and 0 counterexamples"),
    ],
)  # fmt: skip
def test_a_query_says_what_it_is(given, type_, kind, holds_image, ids, sources, text):
    query = as_query(given)
    assert type(query) is type_
    assert as_query(query) is query
    assert (query.kind, query.holds_image, str(query)) == (kind, holds_image, text)
    assert (query.ids, query.sources) == (ids, sources)


def test_the_parts_of_examples_are_the_query_then_like_then_unlike():
    kinds = [part.kind for part in EXAMPLES.parts]
    assert kinds == ["vector", "file", "id", "id", "window"]
    assert EXAMPLES.parts[0].vector is VECTOR
    assert EXAMPLES.parts[2:] == (ById("x"), ById("y"), WINDOW)
    assert ById("x").parts == (ById("x"),)


@pytest.mark.parametrize("shape", [(), (2, 16), (1, 3, 4, 5)])
def test_an_array_of_other_axes_is_no_query(shape):
    with pytest.raises(UsageError, match=f"not a {len(shape)}-D array"):
        as_query(np.zeros(shape))


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        ({"window": (0, 0, 5)}, "a window is column, row, width, height in pixels, not"),
        ({"window": "abcd"}, "a window is"),
        ({"window": (0, 0, 1.5, 2)}, "a window is"),
        ({"window": (0, 0, float("nan"), 5)}, "a window is"),
        ({"window": 5}, "a window is .* not 5"),
        ({"bbox": (1, 2, 3)}, "a bbox is west, south, east, north in degrees, not"),
        ({"bbox": (None, 1, 2, 3)}, "a bbox is"),
        ({"bbox": (0, 0, float("inf"), 1)}, "a bbox is"),
        ({"point": (1,), "size": 5}, "a point is longitude, latitude in degrees, not"),
        ({"point": (1, 2), "size": "a"}, "a size is metres, not 'a'"),
        ({"point": (1, 2), "size": float("nan")}, "a size is metres, not nan"),
        ({}, "one of them"),
        ({"point": (16.2, 45.1)}, "one of them"),
        ({"size": 5}, "one of them"),
        ({"window": (0, 0, 9, 9), "bbox": (0, 0, 1, 1)}, "one of them"),
    ],
)
def test_wrong_windows_are_refused(window, reason):
    with pytest.raises(UsageError, match=reason):
        ByWindow("a.tif", **window)


@pytest.mark.parametrize("query", ["a.png", Path("a.png"), ById("a"), WINDOW, EXAMPLES])
def test_a_single_query_in_place_of_a_list_of_examples_is_refused(query):
    with pytest.raises(UsageError, match="list of examples"):
        Examples(like=query)
    with pytest.raises(UsageError, match="list of examples"):
        Examples(unlike=query)


@pytest.mark.parametrize("wrong", [{"like": [EXAMPLES]}, {"unlike": [EXAMPLES]}])
def test_examples_are_not_made_of_examples(wrong):
    with pytest.raises(UsageError, match="made of examples"):
        Examples(**wrong)
    with pytest.raises(UsageError, match="made of examples"):
        Examples(["a.png"], query=EXAMPLES)
